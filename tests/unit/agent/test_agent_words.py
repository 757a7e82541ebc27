"""What templates can say: confd's and consul-template's words, quoting, and what is recorded."""

from __future__ import annotations

from itertools import pairwise

import pytest
from configagent.formats import FormatError, check_format
from configagent.sandbox import Failed, Job, PlainEnvironment, render
from configagent.words import FILTERS, Words
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
PLAIN = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)
KEYS = {
    "/nginx/domain": b"example.org",
    "/nginx/tuning": b'{"keepalive": 65, "on": true}',
    "/up/app/a": b"10.0.0.1:80",
    "/up/app/b": b"10.0.0.2:80",
    "/up/db/a": b"10.1.0.1:5432",
    "/text": b"line 1\nline 2",
    "/evil": b"x;\n evil on;",
    "/quote": b'it\'s "so" $HOME \\ %d',
    "/bin": b"\xff\xfe",
    "/yaml": b"servers: [a:1, b:2]\ndebug: no\nsince: 2031-05-02\nnone: ~\n",
    "/json": b'[{"n": "b", "g": 1}, {"n": "a", "g": 2}, {"n": "c", "g": 1}]',
}
ENVIRONMENT = PlainEnvironment()


def show(source: str, scope: tuple[str, ...] = ()) -> str:
    words = Words(KEYS, scope, "web")
    words.content_revision = 7
    words.environment = {"COLOR": "red"}
    return render(ENVIRONMENT, Job(source, words, {"name": "n1", "labels": {}}, "web", 10_000))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ getv('/nginx/domain') }}", "example.org"),
        ("{{ getv('nginx/domain') }}", "example.org"),
        ("{{ getv('/none', 'auto') }}", "auto"),
        ("{{ get('/nginx/domain').value }}", "example.org"),
        ("{{ exists('/nginx/domain') }}{{ exists('/no') }}", "TrueFalse"),
        ("{% for kv in gets('/up/app/*') %}{{ kv.key }} {% endfor %}", "/up/app/a /up/app/b "),
        ("{{ gets('/up/*') | length }}", "0"),  # a star stops at a slash
        ("{{ getvs('/up/*/a') | join(',') }}", "10.0.0.1:80,10.1.0.1:5432"),
        ("{{ ls('/up') | join(',') }}", "app,db"),
        ("{{ lsdir('/') | join(',') }}", "nginx,up"),
        ("{{ key('/nginx/domain') }}", "example.org"),
        ("{{ key_or_default('/no', 'd') }}{{ key_exists('/no') }}", "dFalse"),
        ("{% for kv in tree('/up/app') %}{{ kv.key }}{% endfor %}", "ab"),
        ("{{ (getv('/nginx/tuning') | fromjson).keepalive | int + 1 }}", "66"),
        ("{{ (getv('/nginx/tuning') | parseJSON) | tojson }}", '{"keepalive": 65, "on": true}'),
        ("{{ (getv('/yaml') | fromyaml).servers[1] }}", "b:2"),
        ("{{ getv('/yaml') | fromyaml | tojson }}",
         '{"debug": false, "none": null, "servers": ["a:1", "b:2"], "since": "2031-05-02"}'),
        ("{{ {'a': [1, 'x: y', true]} | toyaml }}", '{"a": [1, "x: y", true]}'),
        ("{{ {'a': 1, 'b': 'x'} | totoml }}", '"a" = 1\n"b" = "x"\n'),
        ("{{ getv('/text') | multiline }}", "line 1\nline 2"),
        ("{{ getv('/text') | multiline | indent(2) }}", "line 1\n  line 2"),
        ("{{ getv('/text') | lines | last }}", "line 2"),
        ("{{ getv('/quote') | q_shell }}", "'it'\"'\"'s \"so\" $HOME \\ %d'"),
        ("{{ getv('/quote') | q_systemd }}", '"it\'s \\"so\\" $$HOME \\\\ %%d"'),
        ("{{ getv('/evil') | tojson }}", '"x;\\n evil on;"'),
        ("{{ getv('/evil') | b64enc | b64dec | multiline }}", "x;\n evil on;"),
        ("{{ '10.1.2.3/8' | cidr }}", "10.0.0.0/8"),
        ("{{ '/a/b/c' | basename }}", "c"),
        ("{{ 'x' | sha256 }}", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"),
        ("{{ (getv('/json') | fromjson | sort_by('n') | first).n }}", "a"),
        (
            "{% for g in getv('/json') | fromjson | group_by('g') %}"
            "{{ g.key }}:{{ g.items | length }} {% endfor %}",
            "1:2 2:1 ",
        ),
        ("{% for k, v in {'b': 1, 'a': 2} | items %}{{ k }}{{ v }}{% endfor %}", "a2b1"),
        ("{{ node.name }} {{ set.revision }}", "n1 7"),
        ("{{ banner() }}", "managed by configagent, set web, rev 7, do not edit"),
        ("{{ getenv('COLOR') }}", "red"),
        ("{{ none_such | default('d') }}", "d"),
        ("{% macro m(x) %}<{{ x }}\n>{% endmacro %}{{ m(1) }}", "<1\n>"),
        ("{% for x in [1, 2] %}{{ loop.index }}{{ ',' if not loop.last }}{% endfor %}\n", "1,2\n"),
    ],
)  # fmt: skip
def test_words(source: str, text: str) -> None:
    assert show(source) == text


@pytest.mark.parametrize(
    ("source", "reason", "line"),
    [
        ("a\n{{ getv('/none') }}", "key /none: does not exist", 2),
        ("{{ oops }}", "'oops' is undefined", 1),
        ("a\nb\n{{ node.oops }}", "no item 'oops'", 3),
        ("{{ getv('/evil') }}", "line break or control character", 1),
        ("{{ gets('/up/app/*') | map(attribute='value') | join('\n') }}", "line break", 1),
        ("{{ getv('/evil') | q_nginx }}", "line break or control character", 1),
        ("{{ getv('/quote') | q_nginx }}", "holds $", 1),
        ("{{ getv('/evil') | q_ini }}", "line break", 1),
        ("{{ getv('/evil') | multiline | upper }}", "line break", 1),
        ("{{ getv('/bin') }}", "is not UTF-8", 1),
        ("{{ getv('/nginx/domain') | hostport }}", "hostport", 1),
        ("{{ getv('/nginx/domain') | fromjson }}", "fromjson", 1),
        ("{{ '{a: 1' | fromyaml }}", "fromyaml: yaml: malformed", 1),
        ("{{ '!!python/object:os.system {}' | fromyaml }}", "no plain value", 1),
        ("{{ '[&a [1], *a]' | fromyaml }}", "an alias", 1),
        ("{{ '{a: 1, a: 2}' | fromyaml }}", "names a key twice", 1),
        ("{{ ('--- 1\n--- 2' | multiline) | fromyaml }}", "2 documents", 2),
        ("{{ fail('no upstreams') }}", "no upstreams", 1),
        ("{{ getenv('HOME') }}", "not in allow_env", 1),
        ("{% if %}", "template syntax", 1),
        ("{{ 'x' | nofilter }}", "No filter named 'nofilter'", 1),
        ("{% for x in [1] * 20000 %}a{% endfor %}", "larger than 10000", 0),
    ],
)
def test_refusals_name_key_and_line(source: str, reason: str, line: int) -> None:
    with pytest.raises(Failed) as caught:
        show(source)
    assert reason in str(caught.value)
    assert caught.value.line == line


def test_scope_is_enforced() -> None:
    assert show("{{ getv('/nginx/domain') }}", ("/nginx",)) == "example.org"
    for source in ("{{ getv('/up/app/a') }}", "{{ gets('/up/app/*') }}", "{{ exists('/text') }}"):
        with pytest.raises(Failed, match="outside the set's scope"):
            show(source, ("/nginx",))


def test_reads_are_recorded_found_or_not() -> None:
    words = Words(KEYS, (), "web")
    source = "{{ getv('/nginx/domain') }}{{ exists('/no') }}{{ gets('/up/app/*') | length }}"
    render(ENVIRONMENT, Job(source, words, {}, "web", 1000))
    assert words.reads.keys == {"/nginx/domain", "/no", "/up/app/a", "/up/app/b"}
    assert words.reads.spans == {"/up/app/"}
    assert not words.reads.secret
    words.secret("/nginx/domain")
    assert words.reads.secret


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("json", '{"a": 1}', '{"a": 1, "a": 2}'),
        ("json", "[]", "{"),
        ("toml", "a = 1", "a = "),
        ("ini", "[a]\nb = 1", "b = 1"),
        ("yaml", "a: 1\nb: [x, {c: d}]\n", "a: [1\n"),
        ("yaml", "base: &b {x: 1}\nuse: *b\n---\ntwo\n", "a: 1\nb: 2\na: 3\n"),
        ("yaml", "a: 1", "a: *nowhere\n"),
        ("yaml", "a: 1", "[" * 100_000),  # the composer would recurse in C
        ("xml", "<a><b/></a>", "<a><b></a>"),
        ("xml", "<a/>", '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'),
        ("", "anything", None),
    ],
)
def test_formats(name: str, good: str, bad: str | None) -> None:
    check_format(name, good)
    if bad is not None:
        with pytest.raises(FormatError):
            check_format(name, bad)


def test_an_alias_bomb_is_judged_in_a_moment_and_never_unfolded() -> None:
    rows = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"{n}: &{n} [{', '.join([f'*{p}'] * 10)}]" for p, n in pairwise("abcdefghij")]
    check_format("yaml", "\n".join(rows))  # 10^10 items, were they unfolded
    with pytest.raises(Failed, match="an alias"):
        show("{{ '" + rows[1] + "' | fromyaml }}")


@settings(deadline=None)
@given(PLAIN)
def test_toyaml_is_read_back_by_a_yaml_reader(value: object) -> None:
    text = FILTERS["toyaml"](value)
    assert FILTERS["fromyaml"](text) == value
