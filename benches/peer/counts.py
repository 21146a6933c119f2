#!/usr/bin/env python3
"""Loads, pairs and transitions of experts in every layer of a made-up run, by polars and by DuckDB: seconds.

  counts.py FOLDER [polars|duckdb] [THREADS]

FOLDER is one that `cargo run --release -p benches --example full_metrics` has written. BOS rows are left out, as ours
are; a transition is an expert of a token and one of the next token of the same text. Of several ways tried the fastest
is kept: polars counts codes (64 a + b) of 16 bits, all combinations of slots concatenated; DuckDB the same codes,
unnested. Prints the seconds and, to compare, cells above zero and sums over all layers.
Needs polars and duckdb.
"""
import itertools
import os
import sys
import time

LAYERS, CHOSEN, EXPERTS = range(1, 28), 6, 64


def by_polars(files):
    import polars

    def codes(pairs):
        code = lambda a, b: (a.cast(polars.UInt16) * EXPERTS + b.cast(polars.UInt16)).alias("code")
        return [code(a, b) for a, b in pairs]

    def counted(table, expressions):
        return polars.concat([table.select(e).drop_nulls() for e in expressions]).group_by("code").len().collect()

    for layer in LAYERS:
        rows = polars.scan_parquet(files).filter(polars.col("position") > 0)
        slots = [polars.col(f"experts_{layer:02}").arr.get(rank).alias(str(rank)) for rank in range(CHOSEN)]
        follows = (polars.col("position").shift(-1) > polars.col("position")).alias("follows")
        table = rows.select(*slots, follows).collect().lazy()
        now = [polars.col(str(rank)) for rank in range(CHOSEN)]
        next_ = [polars.when("follows").then(slot.shift(-1)) for slot in now]
        both = [(polars.min_horizontal(a, b), polars.max_horizontal(a, b)) for a, b in itertools.combinations(now, 2)]
        yield [
            counted(table, [slot.cast(polars.UInt16).alias("code") for slot in now])["len"],
            counted(table, codes(both))["len"],
            counted(table, codes(itertools.product(now, next_)))["len"],
        ]


def by_duckdb(files, threads):
    import duckdb

    database = duckdb.connect(config={"threads": threads})
    database.execute("set preserve_insertion_order = true")
    numbers = range(1, CHOSEN + 1)
    for layer in LAYERS:
        database.execute(
            f"create or replace temp table now as select row_number() over () as row, sample_id, experts_{layer:02} as e "
            f"from read_parquet({files!r}) where position > 0"
        )
        database.execute(
            "create or replace temp table steps as select a.e as e, b.e as f from now a "
            "left join now b on b.row = a.row + 1 and b.sample_id = a.sample_id"
        )

        def counted(codes, nulls=""):
            listed = ", ".join(codes)
            query = f"select code, count(*) as n from (select unnest([{listed}]) as code from steps {nulls}) group by code"
            return [n for _, n in database.sql(query).fetchall()]

        pair = [f"least(e[{a}], e[{b}])::usmallint * {EXPERTS} + greatest(e[{a}], e[{b}])" for a, b in itertools.combinations(numbers, 2)]
        step = [f"e[{a}]::usmallint * {EXPERTS} + f[{b}]" for a, b in itertools.product(numbers, numbers)]
        yield [counted([f"e[{a}]" for a in numbers]), counted(pair), counted(step, "where f is not null")]


def main():
    folder, peer = sys.argv[1], (sys.argv[2:] or ["polars"])[0]
    threads = int((sys.argv[3:] or ["2"])[0])
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    files = sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".data.parquet"))
    __import__(peer)  # not what is measured
    begun = time.perf_counter()
    totals = [[0, 0], [0, 0], [0, 0]]
    for tables in by_polars(files) if peer == "polars" else by_duckdb(files, threads):
        for total, counts in zip(totals, tables):
            total[0] += len(counts)
            total[1] += sum(counts)
    seconds = time.perf_counter() - begun
    loads, pairs, steps = map(tuple, totals)
    print(f"{peer}: {seconds:.2f} s, (cells, sum) of loads {loads}, pairs {pairs}, transitions {steps}")


main()
