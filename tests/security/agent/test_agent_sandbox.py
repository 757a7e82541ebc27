"""Hostile templates: whatever they try, the answer is an error in time, and life goes on."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from configagent.child import Child, ChildLostError

from configsvc import limits

CANARY = "canary-9c1f"
Render = Callable[..., Awaitable[dict[str, Any]]]

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ ().__class__.__bases__[0] }}",
    "{{ getv.__globals__ }}",
    "{{ getv.__self__._keys }}",
    "{{ getv['__globals__'] }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ joiner }}",
    "{{ namespace() }}",
    "{{ range(10) }}",
    "{{ dict(a=1) }}",
    "{{ config }}",
    "{{ request.application }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{% set f = '%s'.format %}{{ f('x') }}",
    "{{ ''|attr('__class__') }}",
    "{{ [''] | map(attribute='__class__') | list | first }}",
    "{{ [getv] | map(attribute='__self__') | list | first }}",
    "{{ [''] | map('attr', '__class__') | list }}",
    "{{ [{}, {}] | sort(attribute='__class__') | first }}",
    "{{ 'x' | pprint }}",
    "{{ 'x' | xmlattr }}",
    "{{ 'a' | safe }}",
    "{{ [1,2] | random }}",
    "{{ 'x'.join(['a']) }}",
    "{{ {}.update({'a': 1}) }}",
    "{{ [].append(1) }}",
    "{% for x in [1] %}{{ loop.__class__ }}{% endfor %}",
    "{% for x in [1] %}{{ loop._iterable }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m._func }}",
    "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% from 'os' import popen %}",
    "{% extends '/etc/passwd' %}",
    "{{ getenv('HOME') }}",
    "{{ getv('/../other/secret') }}",
    "{{ gets('/../*') }}",
    "{{ getv(getv) }}",
    "{{ set.__class__ }}",
    "{{ node.keys() }}",
    "{% set node.name = 'x' %}",
]
BOMBS = [
    "{{ 'a' * 300000000 }}",
    "{{ [0] * 300000000 }}",
    "{{ ('a' * 100000000) ~ ('b' * 100000000) ~ ('c' * 100000000) }}",
    "{{ 'a' * (10 ** 12) }}",
    "{{ 7 ** (9 ** 9) }}",
    "{% for a in 'x' * 30000 %}{% for b in 'x' * 30000 %}{% endfor %}{% endfor %}",
    "{% for a in 'x' * 9000000 %}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "{{ " + "-" * 50_000 + "1 }}",
    "{{ 'a,' * 1000000 | list | join('b') }}",
]


def job(source: str, **changes: Any) -> dict[str, Any]:
    request = {
        "op": "render", "source": source, "keys": {"/secret": CANARY.encode(), "/n": b"1"},
        "scope": [], "set": "s", "revision": 0, "env": {}, "format": "",
        "node": {"name": "n1", "labels": {}}, "bytes_max": limits.AGENT_OUTPUT_BYTES_MAX,
    }  # fmt: skip
    return request | changes


def with_worker(story: Callable[[Child], Awaitable[None]]) -> None:
    async def play() -> None:
        child = Child("configagent.render_worker")
        try:
            await child.start()
            await story(child)
        finally:
            await child.close()
            await asyncio.sleep(0.02)

    asyncio.run(play())


def test_no_escape_of_the_corpus_works() -> None:
    async def story(child: Child) -> None:
        pid = child.pid
        for source in ESCAPES:
            answer = await child.call(job(source), 2.0)
            assert "error" in answer, (source, answer)
            assert CANARY not in answer["error"]
        assert child.pid == pid

    with_worker(story)


@pytest.mark.parametrize("source", BOMBS, ids=[source[:30] for source in BOMBS])
def test_bombs_end_within_the_limit_and_the_next_job_works(source: str) -> None:
    async def story(child: Child) -> None:
        began = time.monotonic()
        try:
            answer = await child.call(job(source), limits.AGENT_RENDER_SECONDS_MAX)
            assert "error" in answer, answer.get("text", "")[:50]
        except ChildLostError:
            pass
        assert time.monotonic() - began < limits.AGENT_RENDER_SECONDS_MAX + 1.0
        answer = await child.call(job("{{ getv('/n') }}"), limits.AGENT_RENDER_SECONDS_MAX)
        assert answer["text"] == "1"

    with_worker(story)


def test_errors_never_quote_values() -> None:
    sources = [
        "{{ getv('/secret') | int }}", "{{ {'a': 1}[getv('/secret')] }}",
        "{{ fail('bad ' ~ getv('/secret')) }}", "{{ getv('/secret') + 1 }}",
        "{{ getv('/secret') | fromjson }}", "{{ (getv('/secret') ~ ': [') | fromyaml }}",
        "{{ getv('/secret') | hostport }}",
        "{{ getv('/secret') | cidr }}", "{{ getv('/secret') | b64dec }}",
        "{{ getv('/secret') | bool }}", "{{ [{}] | sort_by(getv('/secret')) }}",
        "{{ getenv(getv('/secret')) }}",
    ]  # fmt: skip

    async def story(child: Child) -> None:
        for source in sources:
            answer = await child.call(job(source), 2.0)
            assert "error" in answer, source
            if "sort_by" not in source and "getenv" not in source:
                assert CANARY not in answer["error"], (source, answer["error"])

    with_worker(story)


def test_yaml_is_judged_where_nothing_can_be_loaded_any_more() -> None:
    good = "{{ ('a: [1, 2]' | fromyaml).a[1] }}: x\n"

    async def story(child: Child) -> None:
        request = job(good) | {"format": "yaml"}
        assert (await child.call(request, 2.0))["text"] == "2: x\n"
        request = job("a: {{ getv('/secret') }}\na: 2\n") | {"format": "yaml"}
        answer = await child.call(request, 2.0)
        assert answer["error"] == "yaml: a mapping names a key twice at line 1"
        check = {"op": "check", "format": "yaml", "content": b"a: [" * 50_000}
        assert "nests deeper" in (await child.call(check, 2.0))["error"]

    with_worker(story)


def test_the_worker_has_nothing_to_hold_on_to() -> None:
    """Seen from outside: no file, no socket, no environment, no way to get one."""

    async def story(child: Child) -> None:
        base = f"/proc/{child.pid}"
        with open(f"{base}/limits") as file:
            text = file.read()
        rows = {line[:26].strip(): line[26:].split() for line in text.splitlines()[1:]}
        assert rows["Max open files"][:2] == ["3", "3"]
        assert rows["Max processes"][:2] == ["0", "0"]
        assert rows["Max file size"][:2] == ["0", "0"]
        assert rows["Max address space"][0] == str(limits.AGENT_RENDER_MEMORY_BYTES)
        with open(f"{base}/status") as file:
            status = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
        assert status["NoNewPrivs"].strip() == "1"
        assert status["Seccomp"].strip() == "2"
        if os.geteuid() == 0:
            assert status["Uid"].split() == ["65534"] * 4
            assert sorted(os.listdir(f"{base}/fd")) == ["0", "1", "2"]
            with open(f"{base}/environ", "rb") as file:
                assert file.read().split(b"\0")[:1] == [b"LC_ALL=C.UTF-8"]

    with_worker(story)


def test_same_input_same_bytes() -> None:
    source = "{% for kv in gets('/*') %}{{ kv.key }}={{ kv.value }};{% endfor %}{{ banner() }}"

    async def story(child: Child) -> None:
        texts = {(await child.call(job(source), 2.0))["text"] for _ in range(200)}
        assert len(texts) == 1

    with_worker(story)
