"""Random templates of everything that the sandbox allows, with arguments that ask for gigabytes.

Run as a program it renders those of a range of seeds, and prints how much its memory has grown, in bytes.
"""

from __future__ import annotations

import random
import resource
import sys

from penstock.data.templates import Template, TemplateFailure
from penstock.errors import ConfigError

NUMBERS = ["0", "1", "3", "1000", "100000", "10**7", "3*10**8", "10**9", "2**40", "-5"]
TEXTS = [
    *("q", "w", "'a'", "'ab\\tc'", "', '", "'x y z'", "(q|safe)", "'http://a.b '"),
    *("'%s'", "'%1000000000d'", "'%*d'", "'{}'", "'{:>900000000}'", "'{0}{0}{0}{0}'", "'{!r:>99}'"),
]
LISTS = [
    *("xs", "range(100000)", "range(1000)", "[q,q,q]", "['a','b']", "q.split()", "w.split()", "nested"),
    "{'a':q,'b':q}",
]
ALL_FILTERS = (
    "center({n});indent({n});indent(q);format({v});format({n},{v});tojson;tojson(indent={n});batch({n},{v})|list;"
    "slice({n})|list;join({s});replace({s},{t});wordwrap({n},true,{s});xmlattr;urlize({n},false,{s},{t});"
    "map('upper')|list;map('center',{n})|list;list;sort;unique|list;groupby(0);sum(start={v});upper;title;striptags;"
    "escape;forceescape;urlencode;pprint;string;reverse;reverse|list;truncate({n},true,{s});trim;wordcount;length;"
    "round({n});float;int;first;last;max;min;dictsort;items|list;select|list;default({v});attr({s});capitalize;"
    "filesizeformat;abs;count;safe"
)
ALL_METHODS = (
    "ljust({n},'x');rjust({n});zfill({n});center({n});expandtabs({n});replace({s},{t});join({l});join({s});split();"
    "split({s});splitlines();partition({s});format({v},{u});format_map({{'a':1}});encode('utf-32');"
    "encode('ascii','xmlcharrefreplace');upper();translate({{97:q}});to_bytes({n},'big');copy();items()|list;hex();"
    "swapcase();casefold();title();strip();count({s});bit_length();fromkeys({l});maketrans({s},{t})"
)
FILTERS, METHODS = ALL_FILTERS.split(";"), ALL_METHODS.split(";")
ROW = {
    "q": 'some <text> & "words"\t\n' * 1000,
    "w": "日本 😀 語\n" * 2000,
    "xs": ["alpha", "beta"] * 500,
    "nested": [[["a"] * 10] * 10] * 10,
}


def value(chosen: random.Random, depth: int) -> str:
    kind = chosen.random()
    if depth <= 0 or kind < 0.25:
        return chosen.choice(chosen.choice([NUMBERS, TEXTS, LISTS]))
    inner = value(chosen, depth - 1)
    other = value(chosen, depth - 1)
    names = {
        "n": chosen.choice(NUMBERS),
        "s": chosen.choice(TEXTS),
        "t": chosen.choice(TEXTS),
        "l": chosen.choice(LISTS),
        "v": other,
        "u": inner,
    }
    if kind < 0.55:
        return f"({inner})|{chosen.choice(FILTERS).format(**names)}"
    if kind < 0.7:
        return f"({inner}).{chosen.choice(METHODS).format(**names)}"
    if kind < 0.9:
        return f"({inner}) {chosen.choice(['*', '+', '~', '%', '**', '-', '/', '//'])} ({other})"
    return f"({inner})[{chosen.choice(['0', '1', '-5', '1000'])}:]" if kind < 0.95 else f"[{inner}, {other}]"


def template(seed: int) -> str:
    chosen = random.Random(seed)
    inner = value(chosen, chosen.randint(1, 4))
    items, others = chosen.choice(LISTS), chosen.choice(LISTS)
    forms = [
        *[f"{{{{ {inner} }}}}"] * 5,
        f"{{% set n = namespace(l=[]) %}}{{% for i in {items} %}}{{% set n.l = n.l + [{inner}] %}}{{% endfor %}}",
        f"{{% set n = namespace(s='') %}}{{% for i in {items} %}}{{% set n.s = n.s ~ {inner} %}}{{% endfor %}}",
        f"{{% macro m(a) %}}{{% for i in {items} %}}{{{{ a }}}}x{{% endfor %}}{{% endmacro %}}"
        f"{{{{ m({inner}) | length }}}}",
        f"{{% set b %}}{{% for i in {items} %}}{{% for j in {others} %}}{{{{ q }}}}{{% endfor %}}{{% endfor %}}"
        "{% endset %}",
        f"{{% for i in {items} recursive %}}{{{{ loop({others}) }}}}{{{{ {inner} }}}}{{% endfor %}}",
    ]
    return chosen.choice(forms)


def render(seed: int) -> None:
    """As a row of a run would be: what fails, fails as the row's own."""
    try:
        Template(template(seed)).render(ROW)
    except (TemplateFailure, ConfigError):
        return


if __name__ == "__main__":
    begin, end, most_bytes = map(int, sys.argv[1:])
    render(begin)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
    for number in range(begin, end):
        render(number)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
