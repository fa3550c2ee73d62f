"""What Jinja2 gives for many small templates and for whole chat templates.

    python engine/tests/templates/cases.py          writes cases.json anew
    python engine/tests/templates/cases.py --check  compares it with what Jinja2 says now

The environment is the one in which transformers renders chat templates. The engine's own renderer is
held against cases.json by its unit tests; `cargo xtask test templates` runs this with --check, so
that the file stays what Jinja2 gives.

The whole templates (`*.jinja` beside this file) are written for these tests, each in the manner in
which a family of published models writes its own, with the constructs that it leans on:

    bars          DeepSeek   one namespace of flags over two loops, split('</think>')[-1], a variable
                             that the request sets (thinking)
    channels      gpt-oss    macros that call themselves, default() chains, strftime_now, tags that
                             are refused in a turn's content
    chatml        ChatML     {% generation %}, raise_exception for a role out of place
    coder         Qwen coder macros over mappings, loop.previtem and loop.nextitem, |items, |safe
    headers       Llama 3.1  date_string given or by strftime_now, tools in the first question or
                             in the system turn, built-in tools through reject(), tojson(indent=4)
    instructions  Mistral    roles that must alternate (raise_exception), selectattr, a turn compared
                             with a turn, a slice of tojson's text, ids of nine letters
    roles         Phi, GLM   role names as marks, map(attribute=...)
    thinking      Qwen 3     messages[::-1] and a namespace find the last question before a tool
                             loop; thoughts are cut out by split, rstrip and lstrip
    turns         Gemma      no system role, content as text or as a list of parts, alternation

Each is rendered over each conversation of `conversations` below. Published templates themselves are not
among them, because their licences differ.
"""

import datetime
import itertools
import json
import sys
from pathlib import Path

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = Path(__file__).parent
# A Thursday on a leap day.
NOW = datetime.datetime(2024, 2, 29, 14, 5, 9)


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

    def _inside(self, caller):
        return caller()


class Raised(jinja2.TemplateError):
    pass


def raise_exception(message):
    raise Raised(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def environment():
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = NOW.strftime
    return made


VARIABLES = {
    "text": "  Grüße, Welt! \n",
    "word": "straßeNname",
    "two": "a=b=c",
    "lines": "one\n two\r\n\nthree",
    "number": 42,
    "half": 2.5,
    "yes": True,
    "nothing": None,
    "empty": "",
    "list": [3, 1, 2],
    "words": ["pear", "Apple", "fig"],
    "dict": {"b": 1, "a": [True, None, 1.5, 'ü"\\\n\u0001'], "items": 2},
    "rows": [
        {"name": "b", "age": 30, "tags": ["x"]},
        {"name": "A", "age": 20, "tags": []},
        {"name": "b", "age": 25, "tags": ["x", "y"]},
    ],
    "messages": [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "<think>no</think> Hi"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"function": {"name": "f", "arguments": {"z": 1, "a": "x"}}}],
        },
    ],
    "tools": None,
}

RECEIVERS = [
    "''",
    "'abc'",
    "' a b\\tC '",
    "'x-y--z'",
    "'Ünï 12'",
    "'A1'",
    "'HELLO world'",
    "'5'",
    "'-5'",
    "'aXbXc'",
]
METHODS = {
    "capitalize": [""],
    "casefold": [""],
    "center": ["7", "7, '*'", "8, '-'"],
    "count": ["'X'", "'-'", "'', 1", "'b', 1", "'b', 0, -1"],
    "endswith": ["'c'", "('z', 'c')", "'b', 0, 2", "''"],
    "expandtabs": ["", "4"],
    "find": ["'b'", "'-'", "'', 2", "'q'", "'b', -2"],
    "index": ["'b'", "'q'"],
    "isalnum": [""],
    "isalpha": [""],
    "isascii": [""],
    "isdecimal": [""],
    "isdigit": [""],
    "isidentifier": [""],
    "islower": [""],
    "isnumeric": [""],
    "isprintable": [""],
    "isspace": [""],
    "istitle": [""],
    "isupper": [""],
    "join": ["['p', 'q']", "'xyz'", "[]", "[1]", "('a',)", "dict"],
    "ljust": ["6", "6, '.'"],
    "lower": [""],
    "lstrip": ["", "'a '", "None"],
    "partition": ["'-'", "'b'", "'q'", "''"],
    "removeprefix": ["'a'", "'x-'", "''"],
    "removesuffix": ["'c'", "'--z'", "''"],
    "replace": ["'-', '+'", "'X', ''", "'a', 'bb', 1", "'', '.'", "'b'"],
    "rfind": ["'-'", "'X'", "'q'"],
    "rindex": ["'b'", "'q'"],
    "rjust": ["6", "6, '0'"],
    "rpartition": ["'-'", "'b'", "'q'"],
    "rsplit": ["", "'-'", "'-', 1", "None, 1", "sep='X', maxsplit=1", "''"],
    "rstrip": ["", "'c '"],
    "split": ["", "'-'", "'-', 1", "None, 1", "' '", "sep='X', maxsplit=1", "''", "'b', 0"],
    "splitlines": ["", "True", "keepends=True"],
    "startswith": ["'a'", "('q', 'x')", "['a']", "'b', 1", "''"],
    "strip": ["", "'-xz'", "' abC'"],
    "swapcase": [""],
    "title": [""],
    "upper": [""],
    "zfill": ["4", "1"],
    "format": ["1, 2", "a=3"],
    "nomethod": [""],
}
FORMATS = [
    "'{} {}'.format('a', 1)",
    "'{1} {0} {{}}'.format('a', 1)",
    "'{a}-{b!r}'.format(a=1, b='x')",
    "'{:>5}|{:<5}|{:^5}|'.format('a', 'b', 'c')",
    "'{:*^7}'.format('abc')",
    "'{:05d}|{:+d}|{:,}'.format(42, 7, 1234567)",
    "'{:.2f}|{:8.3f}|{:e}'.format(2.5, 3.14159, 12345.678)",
    "'{:x} {:#x} {:b} {:o}'.format(255, 255, 5, 8)",
    "'{:%}|{:.1%}'.format(0.25, 0.5)",
    "'{:.3}|{:10.2}|'.format('abcdef', 'xyz')",
    "'{0[a]} {0[b]}'.format({'a': 1, 'b': 2})",
    "'{0.real}'.format(1) is defined",
    "'{} {}'.format(1)",
    "'{'.format(1)",
    "'{:g} {:g}'.format(1.0, 1e20)",
    "'{}'.format(none)",
    "'{}'.format(true)",
    "'{:d}'.format('x')",
    "'{!s:>4}'.format(1.5)",
    "'{0}{0}'.format('ab')",
    "'%s' % 'a'",
    "'%s and %s' % ('a', 1)",
    "'%d%%' % 5",
    "'%05.1f|' % 3.14159",
    "'%-5s|%5s|' % ('a', 'b')",
    "'%x %X %o' % (255, 255, 8)",
    "'%(a)s-%(b)d' % {'a': 'x', 'b': 2}",
    "'%r' % 'it'",
    "'%s %s' % ('a',)",
    "'%s' % ('a', 'b')",
    "'%e' % 12345.678",
    "'%g' % 0.00001",
    "'%+d % d' % (5, 5)",
    "'%c%c' % ('a', 98)",
    "'%s' % none",
    "'%s' % [1, 'a']",
    "'%d' % 3.9",
    "'%d' % 'x'",
    "'%i' % true",
    "'%.2s' % 'abc'",
    "'%s' % list",
    "'%5.2f' % half",
    "'plain' % ()",
    "'plain' % 1",
    "7 % 3",
    "-7 % 3",
    "7 % -3",
    "7.5 % 2",
    "1 % 0",
]
EXPRESSIONS = [
    # Arithmetic and joining.
    "1 + 2 * 3 - 4",
    "2 ** 10",
    "2 ** -1",
    "7 // 2",
    "-7 // 2",
    "7 / 2",
    "6 / 3",
    "1 / 0",
    "1.0",
    "1e3",
    "1e16",
    "1e-5",
    "0.1 + 0.2",
    "1_000",
    "100000000000000000.0",
    "-1.5",
    "- 2 ** 2",
    "+true",
    "'a' + 'b'",
    "'a' + 1",
    "'a' ~ 1 ~ none ~ true",
    "'ab' * 2",
    "2 * 'ab'",
    "[1] + [2]",
    "[1] * 2",
    "(1, 2) + (3,)",
    "[1] + (2,)",
    "none + 'x'",
    "missing + 'x'",
    "missing ~ 'x'",
    "'x' ~ missing",
    "true + true",
    "'a' 'b' \"c\"",
    "0x1f",
    "0b101",
    "0o17",
    "1.5e3",
    "2 - -1",
    "1 ~ 2 + 3",
    # Comparisons.
    "1 == 1.0",
    "1 == true",
    "'1' == 1",
    "none == none",
    "missing == missing2",
    "missing == none",
    "[1, 2] == [1, 2]",
    "[1] == (1,)",
    "{'a': 1} == {'a': 1.0}",
    "1 < 2 < 3",
    "1 < 3 < 2",
    "'a' < 'b'",
    "'a' < 1",
    "[1, 2] < [1, 3]",
    "none < 1",
    "missing < 1",
    "1 != 2",
    "2 >= 2",
    "'a' in 'cab'",
    "1 in '1'",
    "'a' in ['a']",
    "'a' not in ['a']",
    "'b' in dict",
    "2 in dict",
    "'x' in missing",
    "none in [none]",
    "1 in none",
    "missing in [1]",
    "not 1 == 2",
    "not not 1",
    "1 in [1] and 2 in [2]",
    # Truth and choice.
    "'' or 'x'",
    "'a' and ''",
    "[] or none",
    "1 if yes else 2",
    "1 if nothing",
    "(1 if nothing) is defined",
    "'a' if missing else 'b'",
    "1 if false else 2 if false else 3",
    "missing or 'd'",
    "not missing",
    "not {}",
    "not [0]",
    "0.0 or 'zero'",
    # Literals and how they are written.
    "none",
    "true",
    "[1, 'a', none, true, 1.5, [], {}, ()]",
    "(1,)",
    "(1, 2)",
    "()",
    "{'a': 'b', 1: 2, 'it\\'s': \"q\"}",
    "'it\\'s'",
    '"\\n\\t\\\\ \\x41\\u00fc\\q"',
    "['it\\'s', \"say \\\"x\\\"\", 'tab\\t', 'nl\\n', '\\x07', 'ü', '\\u200b']",
    "dict",
    "rows[0]",
    "1, 2",
    "{'a': {'b': [1]}}['a']['b'][0]",
    # Attributes and items.
    "dict.b",
    "dict['b']",
    "dict.items is defined",
    "dict['items']",
    "dict.items()|list",
    "dict.missing",
    "dict['missing'] is defined",
    "dict.keys()|list",
    "dict.values()|list",
    "dict.get('b')",
    "dict.get('q')",
    "dict.get('q', 7)",
    "dict.get('q', default=1)",
    "dict.items()",
    "dict.keys()",
    "dict.values()|length",
    "dict.copy()",
    "dict.pop('b')",
    "dict.update({})",
    "dict.setdefault('q', 1)",
    "list[0]",
    "list[-1]",
    "list[9]",
    "list[9] is defined",
    "list['0']",
    "list.0",
    "rows.0.name",
    "rows[0]['name']",
    "text[0]",
    "text[-1]",
    "word[3]",
    "word[99] is undefined",
    "missing.x",
    "missing['x']",
    "missing.x.y",
    "nothing.x",
    "nothing['x'] is defined",
    "number.x is defined",
    "word['upper']()",
    "missing()",
    "number()",
    "list.append(1)",
    "list.count(1)",
    "list.index(2)",
    "list.index(9)",
    "(1, 2, 1).count(1)",
    "list.copy()",
    "range(3)",
    "range(3)[1]",
    "range(1, 7, 2)|list",
    "range(5, 0, -2)|list",
    "range(0)|length",
    "range(200000)",
    "half.is_integer()",
    # Slices.
    "list[1:]",
    "list[:-1]",
    "list[::-1]",
    "list[::2]",
    "list[5:]",
    "word[1:4]",
    "word[:-2]",
    "word[::-1]",
    "word[-3:]",
    "text[2:6]",
    "(1, 2, 3)[1:]",
    "word[4:2]",
    "word[:99]",
    "list[-2:]",
    "list[1:2:1]",
    "missing[1:]",
    "nothing[1:] is defined",
    "word[::0]",
    "word[3::-1]",
    "word[:2:-1]",
    "list[:1] + list[2:]",
    "range(9)[2:5]|list",
    # Tests.
    *[
        f"{value} is {test}"
        for value, test in itertools.product(
            [
                "missing",
                "nothing",
                "yes",
                "number",
                "half",
                "word",
                "list",
                "(1,)",
                "dict",
                "range(2)",
                "dict.items()",
                "empty",
                "range",
            ],
            [
                "defined",
                "undefined",
                "none",
                "boolean",
                "true",
                "false",
                "integer",
                "float",
                "number",
                "string",
                "mapping",
                "sequence",
                "iterable",
                "callable",
            ],
        )
    ],
    "'a' is sequence",
    "none is iterable",
    "tools is iterable and tools | length > 0",
    "'abc' is lower",
    "'ABC' is upper",
    "'a1' is lower",
    "'' is lower",
    "4 is even",
    "3 is odd",
    "3 is even",
    "9 is divisibleby 3",
    "9 is divisibleby(4)",
    "1 is eq 1",
    "1 is equalto(2)",
    "1 is ne 2",
    "1 is lt 2",
    "3 is ge(3)",
    "2 is in [1, 2]",
    "'a' is in 'abc'",
    "1 is sameas 1",
    "true is sameas true",
    "1 is sameas true",
    "none is sameas none",
    "word is not defined",
    "missing is not defined",
    "word is string and word is not none",
    "number is not string or false",
    "'upper' is filter",
    "'nope' is filter",
    "'even' is test",
    "'a' is even",
    "missing is none",
    "1 is not eq 2",
    "1 is > 0",
    "word is escaped",
    "not word is defined",
    "dict is mapping and dict is not string",
    # Filters.
    *[
        f"{value}|{name}"
        for value, name in itertools.product(
            [
                "missing",
                "nothing",
                "yes",
                "number",
                "half",
                "word",
                "text",
                "empty",
                "list",
                "words",
                "dict",
                "(1, 2)",
                "dict.items()",
            ],
            [
                "length",
                "count",
                "upper",
                "lower",
                "capitalize",
                "title",
                "trim",
                "string",
                "list",
                "first",
                "last",
                "reverse|list",
                "sort",
                "join",
                "join(', ')",
                "int",
                "float",
                "abs",
                "round",
                "sum",
                "min",
                "max",
                "tojson",
                "default('D')",
                "d('D', true)",
                "wordcount",
                "safe",
                "e",
                "items|list",
                "dictsort",
            ],
        )
    ],
    "'x'|int",
    "'x'|int(7)",
    "'12'|int",
    "' 12 '|int",
    "'12.9'|int",
    "'0x1f'|int(base=16)",
    "'0x1f'|int(0, 16)",
    "'1_000'|int",
    "'_1'|int",
    "'1e3'|int",
    "'ff'|int(base=16)",
    "2.9|int",
    "-2.9|int",
    "'-5'|int",
    "'1.5'|float",
    "'x'|float",
    "'x'|float(2.0)",
    "'inf'|float",
    "2.5|round",
    "3.5|round",
    "2.567|round(2)",
    "2.567|round(1, 'floor')",
    "2.1|round(0, 'ceil')",
    "1234|round(-2)",
    "42|round",
    "-2.5|round",
    "2.675|round(2)",
    "1.5|round|int",
    "'abc'|replace('b', 'x')",
    "'aaa'|replace('a', 'b', 2)",
    "'a1'|replace(1, 2)",
    "5|replace('5', '6')",
    "'abc'|center(9)",
    "'  x '|trim",
    "'xxaxx'|trim('x')",
    "'%s-%s'|format('a', 1)",
    "'%(a)s'|format(a=1)",
    "lines|indent",
    "lines|indent(2)",
    "lines|indent(2, true)",
    "lines|indent(2, false, true)",
    "lines|indent('> ')",
    "'a\\nb\\n'|indent(2)",
    "''|indent",
    "''|indent(2, true)",
    "'x'|indent(width=3, first=true)",
    "'a long text of many words'|truncate(12)",
    "'a long text of many words'|truncate(12, true)",
    "'a long text of many words'|truncate(12, false, '')",
    "'short one'|truncate(8)",
    "'short one'|truncate(5, leeway=0)",
    "'abc'|truncate(2)",
    "words|join",
    "words|join('-')",
    "[1, none, true]|join(',')",
    "rows|join(', ', attribute='name')",
    "'abc'|join('-')",
    "dict|join(',')",
    "range(3)|join",
    "missing|join(',')",
    "words|sort",
    "words|sort(case_sensitive=true)",
    "words|sort(reverse=true)",
    "rows|sort(attribute='age')|map(attribute='age')|list",
    "rows|sort(attribute='name,age')|map(attribute='age')|list",
    "['b', 1]|sort",
    "list|sort(true)",
    "words|map('upper')|list",
    "words|map('replace', 'p', 'q')|join('|')",
    "rows|map(attribute='name')|join",
    "rows|map(attribute='q', default='-')|join",
    "rows|map(attribute='tags.0')|list",
    "rows|map(attribute='q')|list|length",
    "words|map('nope')|list",
    "rows|selectattr('tags')|list|length",
    "rows|selectattr('name', 'equalto', 'b')|map(attribute='age')|list",
    "rows|rejectattr('name', 'equalto', 'b')|list",
    "rows|selectattr('q', 'defined')|list",
    "rows|selectattr('age', '>', 22)|map(attribute='age')|list",
    "list|select('odd')|list",
    "list|reject('odd')|list",
    "[0, 1, '']|select|list",
    "list|select('greaterthan', 1)|list",
    "[1, 'a', none]|select('string')|list",
    "words|select('in', ['fig'])|list",
    "list|map('string')|join('+')",
    "rows|sum(attribute='age')",
    "list|sum(start=10)",
    "['a', 'b']|sum",
    "[[1], [2]]|sum(start=[])",
    "words|min",
    "words|max",
    "words|max(case_sensitive=true)",
    "rows|max(attribute='age')",
    "[]|max is defined",
    "[1, 1, 2]|unique|list",
    "['a', 'A', 'b']|unique|list",
    "['a', 'A']|unique(true)|list",
    "dict|dictsort",
    "dict|dictsort(reverse=true)",
    "{'b': 1, 'A': 2}|dictsort",
    "{'b': 1, 'A': 2}|dictsort(true)",
    "{'b': 1, 'a': 2}|dictsort(false, 'value')",
    "dict|items|list",
    "list|batch(2)|list",
    "list|batch(2, 'x')|list",
    "range(5)|slice(2)|list",
    "range(5)|slice(2, 'x')|list",
    "list|reverse|list",
    "'abc'|reverse",
    "list|first",
    "[]|first is defined",
    "list|last",
    "''|first is defined",
    "rows|groupby('name')|map(attribute=0)|list",
    "rows|groupby('name')|length",
    "'a b_c d-e'|wordcount",
    "'<a> & \"b\"'|e",
    "'a b/ü?'|urlencode",
    "{'a b': 1}|urlencode",
    "'<p>a  <b>b</b></p>'|striptags",
    "word|attr('upper') is callable",
    "dict|attr('b') is defined",
    "list|tojson|length",
    "words|map('length')|list",
    "rows|map(attribute='name')|map('lower')|unique|sort|join(',')",
    "word|nope",
    "word is nope",
    "(list|map('string'))|length",
    "list|map('string')|first",
    "(list|map('string'))[0] is defined",
    "list|join(d='+')",
    "'abc'|list",
    "[3, 1]|sort|first",
    "word|upper|lower",
    "-3|abs",
    "(-3)|abs",
    "'a'|upper ~ 'b'",
    "'A'|lower + 'B'",
    "list|length > 2 and true",
    # JSON.
    "dict|tojson",
    "dict|tojson(indent=2)",
    "dict|tojson(indent=4)",
    "dict|tojson(separators=(',', ':'))",
    "dict|tojson(sort_keys=true)",
    "dict|tojson(ensure_ascii=true)",
    "'🐕\\u00fc'|tojson(ensure_ascii=true)",
    "dict|tojson(true)",
    "[]|tojson(indent=2)",
    "{}|tojson(indent=2)",
    "[[], {}, [1]]|tojson(indent=1)",
    "missing|tojson",
    "none|tojson",
    "(1, 2)|tojson",
    "{1: 2, true: 3, none: 4, 1.5: 5}|tojson",
    "dict.items()|tojson",
    "dict.items()|list|tojson",
    "'<a href=\"x\">\\'&'|tojson",
    "1e20|tojson",
    "1e-7|tojson",
    "0.1|tojson",
    "12345678901234567890|tojson",
    "range(3)|tojson",
    "range(3)|list|tojson",
    "'a/b\\x7f\\u2028'|tojson",
    "dict|tojson(indent='--')",
    "rows|tojson(separators=(',', ':'), sort_keys=true, indent=1)",
    "namespace(a=1)|tojson",
    "dict|tojson(indent=0)",
    "dict|tojson(indent=none)",
    # The time.
    *[
        f"strftime_now('{pattern}')"
        for pattern in [
            "%Y-%m-%d",
            "%d %b %Y",
            "%A",
            "%-d",
            "%B %-d, %Y",
            "%H:%M:%S",
            "%I:%M %p",
            "%-I",
            "%a %j",
            "%y %e",
            "%%",
            "%c",
            "%D %T %F",
            "%Z|%z",
            "%u %w",
            "%-m/%-d",
            "%h",
            "plain",
            "%f",
        ]
    ],
    # Functions.
    "dict(a=1, b='x')",
    "dict({'a': 1}, b=2)",
    "namespace(a=1).a",
    "namespace({'a': 1}, b=2).b",
    "namespace(a=1)['a']",
    "joiner(', ')() is defined",
    "cycler('a', 'b').next()",
    "raise_exception('No: ' ~ word)",
    "range(1, 2, 3, 4)",
    "lipsum is defined and false",
]
STATEMENTS = [
    # Whitespace.
    "a\n{% if yes %}\n  b\n{% endif %}\nc",
    "a\n  {%- if yes -%}\n  b\n  {%- endif %}\nc",
    "a \n\t{{ number }} \n b\n",
    "a\n\n\n",
    "a\r\nb\r\n",
    "{# note #}\na\n  {# note #}\nb",
    "a {#- note -#}\n b",
    "  {% set x = 1 %}\n{{ x }}\n  {{- x }}  \n",
    "a\n  {%+ if yes %}b{% endif %}",
    "a{% if yes +%}\nb{% endif %}",
    "{%- raw %}\n {{ x }} {% y %}\n{%- endraw -%}\n z",
    "a\n  {% raw %}\n {{ x }}\n  {% endraw %}\nb",
    "x{{- ' a ' -}}  y",
    "{{ number }}\n\n{% if no %}{% endif %}\n\n",
    "  {{- number -}}  ",
    "{% if yes %}\n\n  a\n{% endif %}",
    "\n\n{% set x = 1 -%}\n\n  y",
    "{{ {'a': {'b': 1}}['a']['b'] }}{{ '}}' }}{{ \"{%\" }}",
    "{{'a'}}{{-'b'-}}{{'c'}}",
    "a\t {% if yes %}\t\nb{% endif %}",
    "a\n {%- set x = 1 %}\n b",
    "{% for i in list %}\n{{ i }}\n{% endfor %}\nend",
    "{% for i in list -%}\n{{ i }}\n{%- endfor %}",
    # Conditions and loops.
    "{% if no %}a{% elif yes %}b{% else %}c{% endif %}",
    "{% if missing %}a{% else %}b{% endif %}",
    "{% if not messages[0].role == 'system' %}a{% else %}b{% endif %}",
    "{% if 1, 2 %}a{% endif %}",
    "{% for i in list %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }};{% endfor %}",
    "{% for i in list %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }};{% endfor %}",
    "{% for i in list %}{{ loop.previtem is defined }}{{ loop.cycle('a', 'b') }}{{ loop.changed(i > 1) }};{% endfor %}",
    "{% for i in [] %}a{% else %}none{% endfor %}",
    "{% for i in missing %}a{% else %}none{% endfor %}",
    "{% for i in nothing %}a{% endfor %}",
    "{% for i in 5 %}a{% endfor %}",
    "{% for k, v in dict.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in dict %}{{ k }};{% endfor %}",
    "{% for k, v in dict|dictsort %}{{ k }};{% endfor %}",
    "{% for a, b in list %}{% endfor %}",
    "{% for (a, b) in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}",
    "{% for c in 'aü' %}{{ c }}-{% endfor %}",
    "{% for i in list if i > 1 %}{{ i }}{{ loop.length }};{% else %}x{% endfor %}",
    "{% for i in list if i > 9 %}{{ i }}{% else %}x{% endfor %}",
    "{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ loop.index }}{{ c.function.name }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for i in list %}{% set outer = loop %}{% for j in [1, 2] %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for n in [{'v': 1, 'c': [{'v': 2, 'c': []}]}] recursive %}{{ n.v }}{{ loop.depth }}({{ loop(n.c) }}){% endfor %}",
    "{% for m in messages[::-1] %}{{ m.role }}{% endfor %}",
    "{% for m in messages[1:] %}{{ loop.first }}{% endfor %}",
    "{% for x in list|map('string') %}{{ x }}{{ loop.last }}{% endfor %}",
    "{{ loop is defined }}",
    "{% set g = list|map('string') %}{% for x in g %}{{ x }}{% endfor %}{% for x in g %}{{ x }}{% endfor %}",
    "{% for i in (1, 2) %}{{ i }}{% endfor %}",
    "{% for i in 1, 2 %}{{ i }}{% endfor %}",
    "{% for a, b in rows|map(attribute='name')|zip %}{% endfor %}",
    "{{ list|batch(2) is iterable }}",
    "{% for i in list %}{{ loop.foo is defined }}{% endfor %}",
    # Names.
    "{% set x = 1 %}{% for i in list %}{{ x }}{% set x = i %}{{ x }}{% endfor %}{{ x }}",
    "{% set ns = namespace(x=0) %}{% for i in list %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
    "{% if yes %}{% set x = 5 %}{% endif %}{{ x }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a, b = [1] %}",
    "{% set x = 1, 2 %}{{ x }}",
    "{% set x %}a{{ number }}{% endset %}{{ x }}{{ x|length }}",
    "{% set x | upper %}abc{% endset %}{{ x }}",
    "{% set x | trim | upper %} abc {% endset %}[{{ x }}]",
    "{% with a = 1, b = number %}{{ a }}{{ b }}{% set a = 3 %}{% endwith %}{{ a is defined }}",
    "{% with %}{% set z = 1 %}{{ z }}{% endwith %}{{ z is defined }}",
    "{% set number.x = 1 %}",
    "{% set ns = namespace() %}{% set ns.a = [1] %}{{ ns.a }}{{ ns.b is defined }}",
    "{% set messages = messages[1:] %}{{ messages|length }}",
    "{% set _ = dict.get('b') %}{{ _ }}",
    "{% set x = x|default(3) %}{{ x }}",
    "{% set range = 5 %}{{ range }}",
    "{% filter upper %}a{{ word }}{% endfilter %}",
    "{% filter replace('a', 'b')|upper %}banana{% endfilter %}",
    # Macros.
    "{% macro f(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(b=4, a=5) }}",
    "{% macro f(a) %}[{{ a is defined }}]{% endmacro %}{{ f() }}",
    "{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}",
    "{% macro f(a) %}{% endmacro %}{{ f(c=2) }}",
    "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, x=3) }}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    "{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}in{{ number }}{% endcall %}",
    "{% macro f() %}{{ caller('p') }}{% endmacro %}{% call(x) f() %}{{ x }}!{% endcall %}",
    "{% macro f(x, y='d') -%}\n {{ x }}{{ y }}\n{%- endmacro %}{{ f('a')|upper }}",
    "{% macro f() %}{{ late }}{% endmacro %}{% set late = 7 %}{{ f() }}",
    "{% macro f() %}{{ number }}{% endmacro %}{{ f() }}{{ f is callable }}{{ f.name }}",
    "{% macro f() %}{% set z = 1 %}{% endmacro %}{{ f() }}{{ z is defined }}",
    "{% macro f(*a) %}{% endmacro %}",
    "{{ undefined_macro() }}",
    "{% macro f(a=[]) %}{{ a|length }}{% endmacro %}{{ f() }}{{ f([1]) }}{{ f(*[[1, 2]]) }}{{ f(**{'a': [1, 2, 3]}) }}",
    "{% macro f(a) %}{{ a ~ '!' }}{% endmacro %}{{ f('x') + 'y' }}",
    "{% for i in list %}{% macro g() %}{{ i }}{% endmacro %}{{ g() }}{% endfor %}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}",
    "{% set f = 1 %}{% macro f() %}m{% endmacro %}{{ f() }}",
    "{% macro f(x) %}{{ caller is defined }}{% endmacro %}{{ f(1) }}",
    # Functions with state.
    "{% set j = joiner(', ') %}{% for i in list %}{{ j() }}{{ i }}{% endfor %}",
    "{% set c = cycler('a', 'b') %}{% for i in list %}{{ c.next() }}{{ c.current }}{% endfor %}{{ c.reset() }}{{ c.next() }}",
    # What chat templates have of their own.
    "{% generation %}a{% endgeneration %}b",
    "a\n{% generation %}\nb{% set z = 1 %}\n{% endgeneration %}\n{{ z is defined }}",
    "{%- generation -%} x {%- endgeneration -%} y",
    "{{ raise_exception('bad') }}",
    "{% if messages[1].role != 'system' %}{{ raise_exception('System message must be at the beginning.') }}{% endif %}",
    # What does not parse.
    "{% if %}",
    "{% endif %}",
    "{{ 1 + }}",
    "{{ 'a }}",
    "{% for x %}{% endfor %}",
    "{% unknown %}",
    "{{ a b }}",
    "{% if yes %}",
    "{{",
    "{% set %}",
    "{{ x|nope }}",
    "{{ x is nope }}",
    "{{ [1, }}",
    "{# x",
    "{{ $ }}",
    "{{ messages[1].content.split('</think>')[-1].lstrip('\\n') }}|{{ messages[1].content.split('</think>')[0].split('<think>')[-1] }}",
    "{%- for m in messages if m.role != 'system' %}{{ m.role[0]|upper }}{%- endfor -%}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{{ messages[-1].tool_calls[0].function.arguments|tojson }}",
    "{% for k, v in messages[2].tool_calls[0].function.arguments|items %}{{ k }}:{{ v }},{% endfor %}",
    "{{ (messages|last).role }}{{ messages|map(attribute='role')|join('/') }}",
    "{% set loop_messages = messages[1:] if messages[0]['role'] == 'system' else messages %}{{ loop_messages|length }}",
    "{{ messages[2].content is none }}{{ messages[2].content is string }}{{ messages[0].name is defined }}",
    "{{ messages[0]['content'] | trim + '!' }}",
    "{{ '<' ~ messages[0].role ~ '>' }}",
    "{% if messages[2].content %}a{% else %}b{% endif %}",
]


def conversations():
    """Whole templates over whole conversations."""
    plain = [
        {"role": "user", "content": " Hi. "},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "How are you?"},
    ]
    with_system = [{"role": "system", "content": "Be brief.\n"}, *plain]
    thought = [
        {"role": "user", "content": "Hi."},
        {
            "role": "assistant",
            "content": "<think>\nGreet.\n</think>\n\nHello.",
            "reasoning_content": "Greet.",
        },
        {"role": "user", "content": 'Say <b>"x"</b> & more: ü🐕'},
    ]
    tools = [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": 'Tells it: "now".',
                "parameters": {
                    "type": "object",
                    "properties": {
                        "city": {"type": "string", "description": "Where."},
                        "days": {"type": "integer", "enum": [1, 2]},
                        "items": {"type": "array", "items": {"type": "string"}},
                    },
                    "required": ["city"],
                },
            },
        }
    ]
    calls = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "call00001",
                    "type": "function",
                    "function": {
                        "name": "weather",
                        "arguments": {
                            "city": "Bern",
                            "days": 2,
                            "items": ["a", "b"],
                            "deep": {"x": None},
                        },
                    },
                }
            ],
        },
        {
            "role": "tool",
            "tool_call_id": "call00001",
            "name": "weather",
            "content": '{"sun": true}',
        },
        {"role": "assistant", "content": "Sunny."},
        {"role": "user", "content": "Thanks."},
    ]
    # Two rounds of tools after one question, and answers of two tools in a row.
    call = {"id": "call00002", "type": "function"}
    looped = [
        {"role": "user", "content": "Weather in both?"},
        {
            "role": "assistant",
            "content": "<think>\nBern first.\n</think>\n\nI look.",
            "tool_calls": [
                call | {"function": {"name": "weather", "arguments": {"city": "Bern"}}},
            ],
        },
        {"role": "tool", "tool_call_id": "call00002", "content": "sun"},
        {"role": "tool", "tool_call_id": "call00002", "content": "wind"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "Now Basel.",
            "tool_calls": [
                call | {"function": {"name": "search", "arguments": {"query": "Basel", "n": 2}}},
            ],
        },
        {"role": "tool", "tool_call_id": "call00002", "content": "rain"},
    ]
    # Where clients put a tool's answer that know no role for it.
    answered = [*looped[:2], {"role": "user", "content": "<tool_response>\nsun\n</tool_response>"}]
    parts = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {
            "role": "user",
            "content": [{"type": "text", "text": " Look: "}, {"type": "image"}],
        },
    ]
    wrong = [
        {"role": "user", "content": "a"},
        {"role": "system", "content": "late"},
        {"role": "user", "content": "b"},
    ]
    base = {
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    for template in sorted(HERE.glob("*.jinja")):
        for name, more in [
            ("plain", {"messages": plain}),
            ("system", {"messages": with_system}),
            ("thought", {"messages": thought}),
            (
                "no thinking",
                {"messages": thought, "enable_thinking": False, "reasoning_effort": "low"},
            ),
            ("tools", {"messages": calls, "tools": tools}),
            ("tools and system", {"messages": [with_system[0], *calls], "tools": tools}),
            ("tools not called", {"messages": plain, "tools": tools}),
            ("wrong order", {"messages": wrong}),
            ("tool loop", {"messages": looped, "tools": tools}),
            ("tool loop, no tools", {"messages": looped}),
            ("tool answer of a user", {"messages": answered, "tools": tools}),
            ("whole", {"messages": plain, "add_generation_prompt": False}),
            ("parts", {"messages": parts}),
            ("date", {"messages": with_system, "date_string": "1 Jan 2025", "thinking": True}),
            (
                "tools of its own",
                {
                    "messages": [with_system[0], *looped],
                    "custom_tools": tools,
                    "tools_in_user_message": False,
                    "builtin_tools": ["search", "interpreter"],
                },
            ),
        ]:
            yield {
                "name": f"{template.name}, {name}",
                "template": template.name,
                "variables": base | more,
            }


def outcome(made, source, variables):
    try:
        return {"gives": made.from_string(source).render(**variables)}
    except Raised as error:
        return {"raises": error.message}
    except Exception:
        return {"fails": True}


def cases():
    made = environment()
    sources = [
        f"{{{{ {receiver}.{method}({given}) }}}}"
        for method, givens in METHODS.items()
        for receiver, given in itertools.product(RECEIVERS, givens)
    ]
    sources += [f"{{{{ {expression} }}}}" for expression in [*FORMATS, *EXPRESSIONS]]
    sources += STATEMENTS
    variables = json.loads(json.dumps(VARIABLES))
    small = [
        {"source": source} | outcome(made, source, variables) for source in dict.fromkeys(sources)
    ]
    whole = []
    for case in conversations():
        source = (HERE / case["template"]).read_text()
        whole.append(case | outcome(made, source, case["variables"]))
    return {"jinja2": jinja2.__version__, "variables": VARIABLES, "small": small, "whole": whole}


def main():
    file = HERE / "cases.json"
    rows = cases()
    parts = [
        "{",
        f'"jinja2": {json.dumps(rows["jinja2"])},',
        f'"variables": {json.dumps(rows["variables"], ensure_ascii=False)},',
    ]
    for name, end in [("small", ","), ("whole", "")]:
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows[name])
        parts += [f'"{name}": [', lines, f"]{end}"]
    text = "\n".join([*parts, "}", ""])
    if "--check" not in sys.argv:
        file.write_text(text)
        return
    if file.read_text() != text:
        old = json.loads(file.read_text())
        for name in ("small", "whole"):
            for was, now in zip(old[name], rows[name]):
                if was != now:
                    print(f"{name}: Jinja2 says {now}, cases.json {was}")
        sys.exit(
            "cases.json is not what Jinja2 gives; write it anew with engine/tests/templates/cases.py"
        )
    print(
        f"{len(rows['small'])} small templates and {len(rows['whole'])} whole ones: cases.json is what Jinja2 {rows['jinja2']} gives"
    )


if __name__ == "__main__":
    main()
