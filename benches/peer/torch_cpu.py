#!/usr/bin/env python3
"""PyTorch eager on the CPU, for comparison with the CPU engine on the same DeepSeek-architecture checkpoint.

  torch_cpu.py DIR [SAMPLES] [LENGTH] [PASSES] [THREADS] [sdpa|eager] [nll]

Does the same work as `crates/moetrace-model/examples/throughput.rs`: f32, routing of every MoE layer copied out,
the last layer's experts and the head only with `nll`. Tokens are sorted by expert and each expert runs once on its
rows, as the published modelling code does at inference. Prints tokens/s. Needs torch and safetensors.
"""
import json
import pathlib
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


class Model:
    def __init__(self, folder, attention):
        self.config = json.loads((folder / "config.json").read_text())
        self.w = load_file(folder / "model.safetensors")
        self.attention = attention
        self.experts = []
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}.mlp.experts."
            count = self.config["n_routed_experts"] if f"{prefix}0.up_proj.weight" in self.w else 0
            names = ("gate_proj", "up_proj", "down_proj")
            self.experts.append([[self.w[f"{prefix}{e}.{n}.weight"] for n in names] for e in range(count)])

    def norm(self, x, name):
        return F.rms_norm(x, x.shape[-1:], self.w[name], self.config["rms_norm_eps"])

    def attend(self, x, prefix, cos, sin):
        b, t, d = x.shape
        heads = self.config["num_attention_heads"]
        width = d // heads
        q, k, v = (
            F.linear(x, self.w[f"{prefix}.{n}_proj.weight"]).view(b, t, -1, width).transpose(1, 2) for n in "qkv"
        )
        turned = lambda y: torch.cat((-y[..., width // 2 :], y[..., : width // 2]), -1)
        q, k = (y * cos + turned(y) * sin for y in (q, k))
        if self.attention == "sdpa":
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            mask = torch.full((t, t), float("-inf")).triu(1)
            mixed = torch.softmax(q @ k.transpose(2, 3) / width**0.5 + mask, -1) @ v
        return F.linear(mixed.transpose(1, 2).reshape(b, t, -1), self.w[f"{prefix}.o_proj.weight"])

    def block(self, x, gate, up, down):
        return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)

    def named_block(self, x, prefix):
        return self.block(x, *(self.w[f"{prefix}.{n}_proj.weight"] for n in ("gate", "up", "down")))

    def route(self, x, layer):
        scores = F.linear(x, self.w[f"model.layers.{layer}.mlp.gate.weight"]).softmax(-1)
        return scores.topk(self.config["num_experts_per_tok"], -1)

    def moe(self, x, layer, weights, ids):
        k = ids.shape[-1]
        order = ids.view(-1).argsort(stable=True)
        ends = ids.view(-1).bincount(minlength=len(self.experts[layer])).cumsum(0).tolist()
        out, start = torch.zeros_like(x), 0
        for expert, end in zip(self.experts[layer], ends):
            if end > start:
                picked = order[start:end]
                rows = picked // k
                y = self.block(x[rows], *expert)
                out.index_add_(0, rows, y * weights.view(-1, 1)[picked])
            start = end
        return out + self.named_block(x, f"model.layers.{layer}.mlp.shared_experts")

    @torch.inference_mode()
    def run(self, ids, nll):
        c = self.config
        b, t = ids.shape
        d = c["hidden_size"]
        width = d // c["num_attention_heads"]
        inverse = 1.0 / c["rope_theta"] ** (torch.arange(0, width, 2).float() / width)
        angles = torch.outer(torch.arange(t).float(), inverse).repeat(1, 2)
        cos, sin = angles.cos(), angles.sin()
        x, trace = F.embedding(ids, self.w["model.embed_tokens.weight"]), []
        last = max(layer for layer, experts in enumerate(self.experts) if experts)
        for layer in range(c["num_hidden_layers"]):
            p = f"model.layers.{layer}"
            x = x + self.attend(self.norm(x, f"{p}.input_layernorm.weight"), f"{p}.self_attn", cos, sin)
            h = self.norm(x, f"{p}.post_attention_layernorm.weight")
            if not self.experts[layer]:
                x = x + self.named_block(h, f"{p}.mlp")
                continue
            h = h.view(-1, d)
            weights, chosen = self.route(h, layer)
            trace.append((chosen.to(torch.uint8), weights.half()))
            if layer == last and not nll:
                return trace, None
            x = x + self.moe(h, layer, weights, chosen).view(b, t, d)
        logits = F.linear(self.norm(x, "model.norm.weight"), self.w["lm_head.weight"])
        loss = F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="none")
        return trace, loss


def main():
    folder = pathlib.Path(sys.argv[1])
    numbers = [int(a) for a in sys.argv[2:] if a.isdigit()] + [4, 512, 10, 2][sum(a.isdigit() for a in sys.argv[2:]) :]
    samples, length, passes, threads = numbers
    torch.set_num_threads(threads)
    attention = "eager" if "eager" in sys.argv else "sdpa"
    nll = "nll" in sys.argv
    model = Model(folder, attention)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, model.config["vocab_size"], (samples, length), generator=generator)
    model.run(ids, nll)
    seconds = []
    for _ in range(passes):
        start = time.perf_counter()
        model.run(ids, nll)
        seconds.append(time.perf_counter() - start)
    seconds.sort()
    tokens = samples * length
    middle, best = (tokens / seconds[i] for i in (len(seconds) // 2, 0))
    print(
        f"torch {torch.__version__} {attention} f32 {samples}x{length} threads {threads} nll {nll}: "
        f"median {middle:.0f} tokens/s, best {best:.0f}"
    )


if __name__ == "__main__":
    main()
