#!/usr/bin/env python3
"""Writes tests/transcripts/NAME.out from a running PostgreSQL 15: oracle.py [NAME...]

The connection comes from the environment (PGHOST, PGPORT, PGUSER …). Each file runs in a fresh database.
"""

import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).parent / "transcripts"


def statements(text):
    current = ""
    for line in text.splitlines():
        if line.lstrip().startswith("--") or not line.strip():
            continue
        current += line + "\n"
        if line.rstrip().endswith(";") and not line.rstrip().endswith("\\;"):
            yield current
            current = ""


def psql(database, text):
    command = ["psql", "-X", "-A", "-F", "|", "-P", "null=NULL", "-P", "footer=off", "-v", "VERBOSITY=verbose",
               "-v", "SHOW_CONTEXT=never", "-d", database]
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout


def transcript(path):
    psql("postgres", "DROP DATABASE IF EXISTS oracle;\n"
         "CREATE DATABASE oracle TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';\n")
    text = "SET timezone = 'UTC';\n"
    for statement in statements(path.read_text()):
        for line in statement.splitlines():
            text += "\\echo '> " + line.replace("\\", "\\\\").replace("'", "''") + "'\n"
        text += statement
    lines, skip = [], False
    for line in psql("oracle", text).splitlines()[1:]:
        if line.startswith("LINE ") :
            skip = True
            continue
        if skip:
            skip = False
            continue
        if line.startswith(("LOCATION:", "SCHEMA NAME:", "DATATYPE NAME:", "TABLE NAME:", "COLUMN NAME:", "CONSTRAINT NAME:")):
            continue
        lines.append(line)
    path.with_suffix(".out").write_text("\n".join(lines) + "\n")


for file in sorted(FOLDER.glob("*.sql")):
    if file.name.startswith("amphora_") or (sys.argv[1:] and file.stem not in sys.argv[1:]):
        continue
    transcript(file)
