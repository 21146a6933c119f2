#!/usr/bin/env python3
"""Loads and pairs of experts in every layer of a made-up run, by polars and by DuckDB: seconds.

  counts.py FOLDER [polars|duckdb] [THREADS]

FOLDER is one that `cargo run --release -p benches --example full_metrics` has written. BOS rows are left out, as ours
are. Prints the seconds and, to compare, the sum over layers of loads and of unique pairs. Needs polars and duckdb.
"""
import itertools
import os
import sys
import time

LAYERS, CHOSEN = range(1, 28), 6


def by_polars(files):
    import polars

    loads = pairs = 0
    for layer in LAYERS:
        ids = polars.scan_parquet(files).filter(polars.col("position") > 0).select(f"experts_{layer:02}")
        slots = [polars.col(f"experts_{layer:02}").arr.get(rank).alias(str(rank)) for rank in range(CHOSEN)]
        table = ids.select(slots).collect()
        loads += sum(table[str(rank)].value_counts()["count"].sum() for rank in range(CHOSEN))
        each = [
            table.select(
                polars.min_horizontal(str(a), str(b)).alias("low"), polars.max_horizontal(str(a), str(b)).alias("high")
            ).group_by("low", "high").len()
            for a, b in itertools.combinations(range(CHOSEN), 2)
        ]
        pairs += polars.concat(each).group_by("low", "high").agg(polars.col("len").sum()).height
    return loads, pairs


def by_duckdb(files, threads):
    import duckdb

    database = duckdb.connect(config={"threads": threads})
    loads = pairs = 0
    for layer in LAYERS:
        rows = f"(select experts_{layer:02} as e from read_parquet({files!r}) where position > 0)"
        loads += sum(
            n for _, n in database.sql(f"select id, count(*) from (select unnest(e) as id from {rows}) group by id").fetchall()
        )
        each = [
            f"select least(e[{a}], e[{b}]) as low, greatest(e[{a}], e[{b}]) as high, count(*) as n from rows group by all"
            for a, b in itertools.combinations(range(1, CHOSEN + 1), 2)
        ]
        query = f"with rows as materialized (from {rows}) select low, high, sum(n) from ({' union all '.join(each)}) group by all"
        pairs += len(database.sql(query).fetchall())
    return loads, pairs


def main():
    folder, peer = sys.argv[1], (sys.argv[2:] or ["polars"])[0]
    threads = int((sys.argv[3:] or ["2"])[0])
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    files = sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".data.parquet"))
    begun = time.perf_counter()
    loads, pairs = by_polars(files) if peer == "polars" else by_duckdb(files, threads)
    print(f"{peer}: {time.perf_counter() - begun:.1f} s, {loads:,} slots, {pairs:,} unique pairs")


main()
