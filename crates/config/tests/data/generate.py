"""Writes what stock's `dask.config` and `dask.utils` make of many texts, for tests/stock.rs.

Run with a Python that has dask and distributed 2026.8.0 from this directory.
"""
import json
import os

import distributed
import yaml
from dask.config import collect_env, interpret_value
from dask.utils import parse_bytes, parse_timedelta

LITERALS = r"""
1
-1
+1
--1
- 1
0
00
01
1_000
1__0
_1
1_
1.5
-1.5
.5
1.
1e3
1E-3
1e+3
1e
1_0.0_1
0x10
0X1f
0o17
0b101
0b102
0x
1e400
100000000000000000000
None
none
NONE
null
Null
True
true
TRUE
False
false
Trueish
True 
 True
10s
5 minutes
tcp://127.0.0.1:8786
info
inf
nan
'a'
"a"
'a"b'
"it's"
'a' 'b'
'a
'a\'b'
'a\\b'
'\n\t\x41\u00e9\U0001F600\101\0'
'\q'
r'\d+'
u'x'
'''a'b'''
\"\"\"a\"\"\"
[]
[1]
[1,]
[1, 2]
[,]
[1,,2]
[1 2]
[1
['feed', 'run_function']
["a", 'b', None, True, 1.5]
[[1, [2]], (3, 4)]
()
(1)
(1,)
(1, 2)
1, 2
1,
,
a,b
{}
{'a': 1}
{'a': {'b': [1, 2]}, "c": None}
{'a': 1,}
{'a'}
{'a',}
{'a': }
{'a': 1 'b': 2}
{2: 2, 1.5: 3, None: 4, True: 5}
{[1]: 2}
set()
set( )
[1, # comment
1 # comment
# comment
1 + 2
'a' + 'b'
f'x'
lambda: 1
os.system('true')
[a]
{a: 1}
(((1)))
[ 1 , 2 ]
{ 'a' : 1 , }
-[1]
-True
1 if 1 else 2
/path/to/file
*
é
'é'
$HOME
[True, False, None]
[true]
""".strip("\n").replace('\\"', '"').split("\n")
LITERALS += ["", " ", "1\n", "[1,\n2]", "'a\nb'", "\t1", "1\n2", "[1,\n # c\n 2]", "(" * 60 + "1" + ")" * 60]

SIZES = """
100|100 MB|100M|5kB|5.4 kB|1kiB|1Ki|1e6|1e6 kB|MB|GiB|4GB|10Gi|10gi|1.5 GiB|0|0.5|5 foos|b|B|1 B|1_000|1_000 kB
1__0|1.2.3|.5kB|1e|kB5|5 k B|5KB|5Kib|2 TiB|1PB|3PiB|1e3MB|1E3|-|+5|x|5%|1,5|inf|nan|1inf| 5 |5	MB|5\u00b5
""".strip("\n").replace("\n", "|").split("|") + [""]

TIMES = """
3s|3.5 seconds|300ms|1h|2 minutes|1 minute|1m|1M|1 hour|1d|1 day|2w|1us|5 ns|10 MS|10 Seconds|5|0|0 seconds|1e3ms|1e-3
s|ms|.5s|-5s|5 foo|5 5s|1.2.3s|5 microseconds|1_000ms|1h30m|inf|infs|1e3|1E3 s|+5s|milliseconds| 5 s |5 min
""".strip("\n").replace("\n", "|").split("|") + [""]


def attempt(function, *args):
    try:
        value = function(*args)
        json.dumps(value)
        return value
    except TypeError:
        return "unrepresentable"
    except (ValueError, KeyError, IndexError, OverflowError):
        return "error"


def flat(value, path=""):
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}" if path else key)
    else:
        yield path, value


def listed(value):
    if isinstance(value, (list, tuple)):
        return [listed(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [listed(item) for item in sorted(value, key=str)]
    if isinstance(value, dict):
        return {key if isinstance(key, str) else json.dumps(key): listed(item) for key, item in value.items()}
    return value


def literal(text):
    try:
        value = listed(interpret_value(text))
        json.dumps(value)
        return value
    except TypeError:
        return "unrepresentable"


PLAIN = """
yes|no|on|off|y|n|True|FALSE|tRue|null|~|Null|1|-1|+1|0|010|0o10|0x1F|0b11|1_000|1.5|1.|.5|-.5|1e6|1.0e6|1.0e+6|1.5E-3
.inf|-.inf|+.INF|.nan|inf|nan|1:30|1:30:30|01:30|1:60|12:30.5|5 minutes|10s|2020-01-01x|"1"|'yes'|!!str 1|!!int "5"
1_000.5|1e+6|08|0_7|1__0|_1|-0x10|"a\\tb\\u00e9"|'it''s'|[1, yes, "x"]|{a: 1, b: [c]}|[]|{}|99999999999999999999
""".strip("\n").replace("\n", "|").split("|")

here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(os.path.dirname(distributed.__file__), "distributed.yaml")) as file:
    defaults = dict(flat(yaml.safe_load(file)))
out = {
    "literals": [[text, literal(text)] for text in LITERALS],
    "sizes": [[text, attempt(parse_bytes, text)] for text in SIZES],
    "times": [[text, unit, attempt(parse_timedelta, text, unit)] for text in TIMES for unit in ("seconds", "ms")],
    "plain": [[text, attempt(lambda t: listed(yaml.safe_load(f"a: {t}")["a"]), text)] for text in PLAIN],
    "environment": collect_env(
        {
            "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False",
            "DASK_DISTRIBUTED__SCHEDULER__BLOCKED_HANDLERS": "['feed', 'run_function']",
            "DASK_FOO__BAR_BAZ": "123",
            "DASK_FOO__QUX": "{'a-b': (1, 2)}",
            "DASK_TEMPORARY_DIRECTORY": "/scratch",
            "OTHER": "1",
        }
    ),
    "defaults": defaults,
}
with open(os.path.join(here, "stock.json"), "w") as file:
    json.dump(out, file, indent=1, ensure_ascii=True)
    file.write("\n")
