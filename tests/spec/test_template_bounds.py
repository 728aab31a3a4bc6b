"""What one rendering may allocate: refused before it is allocated, whatever operation would make it."""

from __future__ import annotations

import tracemalloc

import jinja2
import pytest
from jinja2.exceptions import SecurityError

from penstock.spec.template_meter import MAX_RENDERING_BYTES, METER
from penstock.spec.templates import compile_template, environment, template_problem

ROW = {"q": "some <text> & words\n" * 500, "w": "日本 語\n" * 500, "xs": ["alpha", "beta"] * 100}
SMALL_BYTES = 16 << 20  # what may be taken before the refusal

BOMBS = [
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%s' * 100 % ((q * 100,) * 100) }}",
    "{{ '%(a)s' * 100 % {'a': q * 1000} }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ '{:>{w}}'.format(1, w=10 ** 9) }}",
    "{{ '{a:>999999999}'.format_map({'a': 1}) }}",
    "{{ ('{0}' * 100).format(q * 1000) }}",
    "{{ '%999999999d' | format(1) }}",
    "{{ q | center(10 ** 9) }}",
    "{{ q | indent(10 ** 9) }}",
    "{{ q | indent(q * 500) }}",
    "{{ xs | tojson(indent=300000000) }}",
    "{{ [1] | batch(10 ** 9, 0) | list }}",
    "{{ [1] | slice(10 ** 9) | list }}",
    "{{ q | list | join(q) }}",
    "{{ q | join(q) }}",
    "{{ q | map('upper') | join(q) }}",
    "{{ q | replace('o', q * 100) }}",
    "{{ q | wordwrap(1, true, q) }}",
    "{{ ('a.b ' * 10000) | urlize(rel=q) }}",
    "{{ 2.5 | round(10 ** 9, 'ceil') }}",
    "{{ q.replace('o', q * 100) }}",
    "{{ q.join(q) }}",
    "{{ q.expandtabs(1) ~ ('\\t' * 1000).expandtabs(10 ** 8) }}",
    "{{ q.translate({115: q * 10}) }}",
    "{{ q.ljust(10 ** 9) }}{{ q.rjust(10 ** 9) }}{{ q.zfill(10 ** 9) }}",
    "{{ (1).to_bytes(10 ** 9, 'big') }}",
    "{{ ((2 ** 4096) ** 4096) ** 4096 }}",
    "{{ [0] * 10 ** 9 }}",
    "{{ (xs * 100000) + (xs * 100000) }}",
    "{% set a = q * 900 %}{{ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a }}",
    "{% macro m() %}{% for i in range(100000) %}{{ q }}{% endfor %}{% endmacro %}{{ m() }}",
    "{% set b %}{% for i in range(100000) %}{{ q }}{% endfor %}{% endset %}{{ b }}",
    "{% filter upper %}{% for i in range(100000) %}{{ q }}{% endfor %}{% endfilter %}",
]


def render(text: str) -> str:
    template = compile_template(text, lambda value: value)
    METER.begin()
    return template.render(ROW)


@pytest.mark.parametrize("text", BOMBS)
def test_nothing_large_is_made(text: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(SecurityError):
            render(text)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < SMALL_BYTES, f"{peak_bytes >> 20} MiB"


@pytest.mark.parametrize(
    "text",
    [
        "{% set n = namespace(x=[]) %}{% for i in range(10000) %}{% set n.x = n.x + [q * 100] %}{% endfor %}",
        "{% set n = namespace(x='') %}{% for i in range(10000) %}{% set n.x = n.x ~ q %}{% endfor %}",
        "{% set n = namespace(x=[]) %}{% for i in range(10000) %}{% set n.x = n.x + [(q * 100)[1:]] %}{% endfor %}",
    ],
)
def test_many_values_together_are_bounded(text: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(SecurityError, match="together"):
            render(text)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < MAX_RENDERING_BYTES + SMALL_BYTES, f"{peak_bytes >> 20} MiB"


def test_loops_without_an_end_end() -> None:
    with pytest.raises(SecurityError, match="together"):
        render("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}")


def test_templates_mean_what_they_mean_in_jinja() -> None:
    """Loops, slices, joins and formats go through code of ours; their results are jinja's."""
    plain = jinja2.Environment(undefined=jinja2.StrictUndefined)
    texts = [
        "{% for x in xs %}{{ loop.index }}/{{ loop.length }}/{{ loop.revindex }}{{ x }}{% else %}none{% endfor %}",
        "{% for x in [] %}{% else %}none{% endfor %}",
        "{% for x in xs if x == 'beta' %}{{ loop.index0 }}{{ loop.last }}{{ loop.previtem | default('') }}{% endfor %}",
        "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}",
        "{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}<{{ loop(x) }}>{% else %}{{ x }}{% endif %}"
        "{% endfor %}",
        "{{ q[3:9] }}{{ q[:5] }}{{ q[-4:] }}{{ xs[::50] }}{{ q[5] }}",
        "{{ 'a' ~ 1 ~ xs[0] ~ none }}",
        "{{ xs | map('upper') | join(', ') }}{{ xs | unique | list }}{{ [3, 1, 2] | sort | join('-') }}",
        "{{ 'abc def' | wordcount }}{{ 'x %s %05d' | format('y', 3) }}{{ '%s-%(a)s' if false else '%d%%' % 5 }}",
        "{{ '{} {:>5} {!r}'.format(1, 'a', 'b') }}{{ '{a}'.format_map({'a': 2}) }}",
        "{{ ('<b>{}</b>' | safe).format('<i>') }}{{ ('<' | safe) + '<' }}",
        "{{ q.split()[:3] }}{{ q | tojson }}{{ xs[:2] | tojson(indent=2) }}{{ {'a': [1, 2]} | tojson }}",
        "{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}",
        "{% macro c() %}[{{ caller() }}]{% endmacro %}{% call c() %}x{% endcall %}",
        "{% set b %}block{{ 1 }}{% endset %}{{ b }}{% filter upper %}x{{ b }}{% endfilter %}",
        "{{ q | truncate(20) }}{{ q | indent(2, true) }}{{ q | wordwrap(30) }}{{ xs | batch(3, '-') | list | length }}",
        "{{ [1, 2] | sum }}{{ [[1], [2]] | sum(start=[]) }}{{ 2.567 | round(2) }}{{ xs | groupby(0) | length }}",
        "{{ range(5) | list }}{{ dict(a=1).a }}{{ 'a,b'.split(',') | last }}{{ xs | slice(3) | map('length') | list }}",
    ]
    for text in texts:
        assert render(text) == plain.from_string(text).render(ROW), text


def test_constants_are_not_computed_at_length_while_compiling() -> None:
    """The limit holds where jinja folds constants, before any row is there."""
    tracemalloc.start()
    try:
        assert template_problem("{{ 'a' | center(60000000) | center(60000001) | length }}") is None
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < SMALL_BYTES


@pytest.mark.parametrize("text", ["{{ 'a' ~ (1).x }}", "{{ 1 ~ [][0] }}"])
def test_what_jinja_can_not_compute_ahead_is_no_crash(text: str) -> None:
    problem = template_problem(text)
    assert problem is None or problem.startswith("not a valid template")


def test_the_environment_is_one() -> None:
    assert environment() is environment()
