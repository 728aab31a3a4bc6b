"""Sources, part writers, tables of rows, templates.

open.py        paths or lists -> Source           columns.py   rows -> tables of one fixed schema
paths.py       files, globs, folders -> DataFile  parts.py     tables -> part files
files.py       many files as one Source           templates.py a row -> prompt, messages, sampling, truth
jsonl.py csvs.py parquet.py ipc.py lists.py       dead.py      dead rows -> the dead-letter table
"""
