#!/usr/bin/env python3
"""NF4 in bitsandbytes' CPU library and here, in one run: MB/s of bf16 source and of bf16 output.

  nf4_bitsandbytes.py SPEED [ELEMENTS] [THREADS] [ROUNDS]

SPEED is the program that `cargo build --release -p moetrace-nf4 --example speed` builds. Both quantise the same
number of bf16 weights with double quantisation and restore them as bf16, in turn, on as many threads; medians are
printed. Needs torch and bitsandbytes.
"""
import statistics
import subprocess
import sys
import time

import bitsandbytes
import torch
from bitsandbytes import functional


def peer(weights):
    begun = time.perf_counter()
    codes, state = functional.quantize_4bit(weights, compress_statistics=True, quant_type="nf4", blocksize=64)
    between = time.perf_counter()
    functional.dequantize_4bit(codes, state)
    ended = time.perf_counter()
    megabytes = weights.numel() * 2 / 1e6
    return megabytes / (between - begun), megabytes / (ended - between)


def ours(speed, elements, threads):
    line = subprocess.run([speed, str(elements), str(threads), "3"], capture_output=True, check=True).stdout
    return tuple(float(word) for word in line.split())


def main():
    speed = sys.argv[1]
    elements, threads, rounds = (int(a) for a in (sys.argv[2:] + ["33554432", "1", "7"][len(sys.argv) - 2 :]))
    torch.set_num_threads(threads)
    weights = (torch.randn(elements) * 0.02).to(torch.bfloat16)
    peer(weights)
    found = {"bitsandbytes": [], "moetrace": []}
    for _ in range(rounds):
        found["bitsandbytes"].append(peer(weights))
        found["moetrace"].append(ours(speed, elements, threads))
    print(f"torch {torch.__version__}, bitsandbytes {bitsandbytes.__version__}, {threads} threads, {elements} weights")
    medians = {}
    for name, pairs in found.items():
        medians[name] = [statistics.median(column) for column in zip(*pairs)]
        print(f"{name:>13}  quantise {medians[name][0]:7.0f} MB/s  dequantise {medians[name][1]:7.0f} MB/s")
    ratios = [a / b for a, b in zip(medians["moetrace"], medians["bitsandbytes"])]
    print(f"{'ratio':>13}  quantise {ratios[0]:7.1f}       dequantise {ratios[1]:7.1f}")


if __name__ == "__main__":
    main()
