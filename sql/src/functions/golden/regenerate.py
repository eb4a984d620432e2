#!/usr/bin/env python3
"""Rewrites the expected results of the golden files from a PostgreSQL 15.

    PSQL="psql -h /var/run/postgresql -U postgres" ./regenerate.py

A line is `name | type:text | type:text => result`. The name is a function, an operator, `::` (a cast of
the first argument to the type that follows), `@name` (an aggregate; each argument lists its rows,
separated by `;`) or `#name` (a set-returning function; rows are joined by ` ; `). `unknown` marks an untyped
literal and `\\N` is NULL. A result `!SQLSTATE message` is an error.
"""
import glob, os, re, shlex, subprocess

PSQL = shlex.split(os.environ.get("PSQL", "psql"))
SETUP = """
\\set VERBOSITY terse
SET timezone='UTC'; SET datestyle='ISO, MDY'; SET intervalstyle='postgres'; SET extra_float_digits=1;
"""


def quote(text):
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def literal(argument):
    kind, text = argument.split(":", 1)
    value = "NULL" if text == "\\N" else quote(text)
    return value if kind == "unknown" else f"{value}::{kind}"


def statement(line):
    name, *args = [part.strip(" ") for part in line.split(" | ")]
    if name == "::":
        return f"SELECT ({literal(args[0])})::{args[1]}"
    if re.match(r"@[a-z]", name):
        columns = [[literal(a.split(":", 1)[0] + ":" + v) for v in a.split(":", 1)[1].split(";")] for a in args]
        rows = ", ".join("(" + ", ".join(row) + ")" for row in zip(*columns))
        fields = ", ".join(f"c{i}" for i in range(len(args)))
        return f"SELECT pg_catalog.\"{name[1:]}\"({fields}) FROM (VALUES {rows}) v({fields})"
    values = [literal(a) for a in args]
    if re.match(r"#[a-z]", name):
        return f"SELECT * FROM pg_catalog.\"{name[1:]}\"({', '.join(values)})"
    if re.match(r"[a-z]", name):
        return f"SELECT pg_catalog.\"{name}\"({', '.join(values)})"
    if len(values) == 1:
        return f"SELECT {name} {values[0]}"
    return f"SELECT {values[0]} {name} {values[1]}"


def results(cases):
    script = SETUP
    for case in cases:
        script += f"\\echo <<<\n{statement(case)};\n\\echo >>>:SQLSTATE :LAST_ERROR_MESSAGE\n"
        script += "\\set LAST_ERROR_MESSAGE ''\n"
    out = subprocess.run(PSQL + ["-qAtX", "-P", "null=\\N", "-F", ", "], input=script, capture_output=True, text=True)
    for block in out.stdout.split("<<<\n")[1:]:
        body, tail = block.split(">>>", 1)
        state, _, message = tail.split("\n", 1)[0].partition(" ")
        rows = body.rstrip("\n").split("\n") if body else []
        if state != "00000":
            yield f"!{state} {message}"
        else:
            yield " ; ".join(rows).replace("\n", "\\n")


for path in sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "*.txt"))):
    lines = open(path).read().split("\n")
    cases = [line.split(" => ")[0].rstrip() for line in lines if line and not line.startswith("--")]
    answers = iter(zip(cases, results(cases)))
    with open(path, "w") as file:
        text = []
        for line in lines:
            if not line or line.startswith("--"):
                text.append(line)
            else:
                case, answer = next(answers)
                text.append(f"{case} => {answer}")
        file.write("\n".join(text))
