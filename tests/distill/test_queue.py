"""The queue: what a model behind the server learns from recorded trajectories, and what becomes of it when it can't."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner

from reme_mcp.cli.main import cli
from reme_mcp.config.settings import EmbedderSettings, LLMSettings, Settings
from reme_mcp.distill.plan import rejected_of
from reme_mcp.distill.queue import MAX_TRIES
from reme_mcp.errors import AnswerError, EndpointError, InvalidInput, StoreError
from reme_mcp.memory.memory import Memory
from reme_mcp.schema import now
from reme_mcp.text.summaries import record_summary
from tests.distill.queue_cases import STEPS, Hanging, connecting, success, work
from tests.distill.queue_cases import settings as settings
from tests.fakes import (
    GOOD,
    WEAK,
    FakeEmbedder,
    FakeLoader,
    ScriptedLLM,
    differences,
    draft,
    lesson,
    mistakes,
    patterns,
    verdict,
)

pytestmark = pytest.mark.anyio

DEADLINE_S = 30


async def until_empty(memory: Memory) -> None:
    """Wait until the queue is empty, whoever works on it."""
    with anyio.fail_after(DEADLINE_S):
        while await memory.queued():  # noqa: ASYNC110  it may be another process that empties it
            await anyio.sleep(0.01)


# --- what is learned ---


async def test_a_success_is_queued_and_distilled(settings: Settings) -> None:
    llm = ScriptedLLM(patterns(lesson(0), lesson(1)), GOOD, GOOD)
    async with Memory.open(settings, connect=connecting(llm)) as memory:
        result = await memory.record("Put my blog online", outcome="success", steps=STEPS, source="test")
        assert (result.status, result.added, result.brief) == ("queued", [], "")
        assert [one.id for one in await memory.queued()] == [result.trajectory_id]
        [done] = await work(memory)
        assert done.status == "distilled"
        assert await memory.queued() == []
        pool = await memory.pool.page()
        assert {one.content for one in pool} == {lesson(0).content, lesson(1).content}
        assert {(one.author, one.source, one.kind, one.status) for one in pool} == {
            ("scripted", "test", "success", "active")
        }
        # The same call again is told what came of it.
        again = await memory.record("Put my blog online", outcome="success", steps=STEPS, source="test")
        assert again.status == "distilled"
        assert set(again.added) == {one.id for one in pool}
    assert llm.left == 0


async def test_the_receipt_is_settled_at_once(settings: Settings) -> None:
    llm = ScriptedLLM(GOOD)
    async with Memory.open(settings, connect=connecting(llm)) as memory:
        await memory.record("Put a blog online", outcome="success", experiences=[draft(0)], source="test")
        await work(memory)
        recalled = await memory.recall("A static site has to go online", source="test")
        result = await memory.record(
            "Put it online", outcome="success", steps=STEPS, receipt=recalled.receipt, source="test"
        )
        assert [(one.helped, one.utility, one.frequency) for one in result.settled] == [(True, 1, 1)]


async def test_a_failure_is_compared_with_the_success_before_it(settings: Settings) -> None:
    llm = ScriptedLLM(patterns(lesson(0)), GOOD, mistakes(lesson(1)), differences(lesson(2)), GOOD, GOOD)
    async with Memory.open(settings, connect=connecting(llm)) as memory:
        await success(memory)
        await work(memory)
        await memory.record("put my BLOG online", outcome="failure", steps="Uploaded an empty folder.", source="test")
        await work(memory)
        assert {one.kind for one in await memory.pool.page()} == {"success", "failure", "comparative"}
    compared = llm.asked[3].user
    assert "Uploaded an empty folder." in compared
    assert STEPS in compared
    assert llm.left == 0


@pytest.mark.parametrize(("cosine", "compared"), [(0.98, True), (0.96, False)])
async def test_an_attempt_at_nearly_the_same_task_is_the_same_task_by_its_meaning(
    settings: Settings, cosine: float, compared: bool
) -> None:
    # The second task means the first one, turned by the angle of that cosine.
    embedder = FakeEmbedder({"blog": [1.0, 0.0], "weblog": [cosine - 1, (1 - cosine**2) ** 0.5]})
    settings = settings.model_copy(update={"embedder": EmbedderSettings()})
    answers = [patterns(lesson(0)), GOOD, mistakes(lesson(1)), *([differences(lesson(2)), GOOD] if compared else [])]
    llm = ScriptedLLM(*answers, GOOD)
    async with Memory.open(settings, load=FakeLoader(embedder), connect=connecting(llm)) as memory:
        await memory.warm_up(download=False)
        await success(memory)
        await until_empty(memory)
        await memory.record("Bring my weblog online", outcome="failure", steps="It was empty.", source="test")
        await until_empty(memory)
    assert llm.left == 0


async def test_what_the_judge_refuses_is_not_stored_and_kept_with_its_reason(settings: Settings) -> None:
    llm = ScriptedLLM(patterns(lesson(0), lesson(1)), GOOD, WEAK)
    async with Memory.open(settings, connect=connecting(llm)) as memory:
        await success(memory)
        [done] = await work(memory)
        again = await memory.record("Put my blog online", outcome="success", steps=STEPS, source="test")
        assert len(await memory.pool.page()) == len(again.added) == 1
    assert done.status == "distilled"
    assert [one.when_to_use for one in again.rejected] == [lesson(1).when_to_use[:80]]
    assert "weak" in again.rejected[0].reason


@pytest.mark.parametrize(("grade", "stored"), [("weak", 0), ("fair", 1), ("good", 1)])
async def test_the_threshold_is_enough(settings: Settings, grade: Any, stored: int) -> None:
    llm = ScriptedLLM(patterns(lesson(0)), verdict(grade))
    async with Memory.open(settings, connect=connecting(llm)) as memory:
        await success(memory)
        await work(memory)
        assert len(await memory.pool.page()) == stored


async def test_what_the_assistant_wrote_is_judged_as_well(settings: Settings) -> None:
    llm = ScriptedLLM(GOOD, WEAK)
    async with Memory.open(settings, connect=connecting(llm)) as memory:
        result = await memory.record(
            "Put my blog online", outcome="failure", experiences=[draft(0), draft(1)], source="test"
        )
        # The retry need not wait for the judge.
        assert result.status == "queued"
        assert result.lessons == [draft(0)["content"], draft(1)["content"]]
        assert await memory.pool.page() == []
        await work(memory)
        [stored] = await memory.pool.page()
    assert (stored.content, stored.author) == (draft(0)["content"], "assistant")
    assert llm.left == 0


async def test_where_nothing_is_to_be_learned_nobody_is_asked(settings: Settings) -> None:
    async with Memory.open(settings, connect=connecting(ScriptedLLM())) as memory:
        result = await memory.record("Say hello", outcome="success", steps="Hello.", experiences=[], source="test")
        assert result.status == "nothing_to_learn"
        assert await work(memory) == []


async def test_experiences_for_a_queued_trajectory_take_the_place_of_the_models(settings: Settings) -> None:
    llm = ScriptedLLM(GOOD)
    async with Memory.open(settings, connect=connecting(llm)) as memory:
        trajectory_id = await success(memory)
        await memory.record(trajectory_id=trajectory_id, experiences=[draft(3)], source="test")
        await work(memory)
        assert [one.content for one in await memory.pool.page()] == [draft(3)["content"]]


async def test_without_a_model_nothing_is_queued(settings: Settings) -> None:
    async with Memory.open(settings.model_copy(update={"llm": LLMSettings()})) as memory:
        result = await memory.record("Put my blog online", outcome="success", steps=STEPS, source="test")
        assert result.status == "awaiting_experiences"
        with pytest.raises(InvalidInput, match=r"no model is configured"):
            await work(memory)


# --- what goes wrong ---


async def test_a_model_that_is_away_loses_nothing_and_the_reason_is_seen(settings: Settings) -> None:
    llm = ScriptedLLM(EndpointError("nobody is there"), patterns(lesson(0)), GOOD)
    async with Memory.open(settings, connect=connecting(llm)) as memory:
        await success(memory)
        [kept] = await work(memory)
        assert (kept.status, kept.tries, kept.trouble) == ("queued", 1, "nobody is there")
        assert kept.retry_at is not None
        assert kept.retry_at > now()
        assert await memory.pool.page() == []
        [done] = await work(memory)
        assert (done.status, done.trouble) == ("distilled", "")
        assert len(await memory.pool.page()) == 1


async def test_while_the_model_is_away_the_others_are_not_tried(settings: Settings) -> None:
    llm = ScriptedLLM(EndpointError("nobody is there"))
    one_at_a_time = settings.model_copy(update={"llm": settings.llm.model_copy(update={"concurrency": 1})})
    async with Memory.open(one_at_a_time, connect=connecting(llm)) as memory:
        await success(memory, "Put my blog online")
        await success(memory, "Bake a cake")
        assert sorted(one.tries for one in await work(memory)) == [0, 1]


async def test_a_question_without_an_answer_concerns_its_own_trajectory_only(settings: Settings) -> None:
    llm = ScriptedLLM(AnswerError("nonsense"), patterns(lesson(1)), GOOD)
    one_at_a_time = settings.model_copy(update={"llm": settings.llm.model_copy(update={"concurrency": 1})})
    async with Memory.open(one_at_a_time, connect=connecting(llm)) as memory:
        await success(memory, "Put my blog online")
        await success(memory, "Bake a cake")
        assert sorted(one.status for one in await work(memory)) == ["distilled", "queued"]


async def test_a_trajectory_that_fails_too_often_waits_for_a_person(settings: Settings) -> None:
    llm = ScriptedLLM(*[AnswerError("nonsense")] * MAX_TRIES, patterns(lesson(0)), GOOD)
    async with Memory.open(settings, connect=connecting(llm)) as memory:
        await success(memory)
        pauses = []
        for _ in range(MAX_TRIES):
            [kept] = await work(memory)
            pauses.append(kept.retry_at)
        assert pauses[-1] is None
        assert None not in pauses[:-1]
        assert [one.status for one in await work(memory)] == ["distilled"]


@pytest.mark.parametrize(("is_permanent", "says"), [(False, "tried again later"), (True, "tried again later")])
async def test_whoever_waits_is_told_why_nothing_was_learned(settings: Settings, is_permanent: bool, says: str) -> None:
    waiting = settings.model_copy(update={"llm": settings.llm.model_copy(update={"wait": True})})
    llm = ScriptedLLM(EndpointError("nobody is there", is_permanent=is_permanent))
    async with Memory.open(waiting, connect=connecting(llm)) as memory:
        result = await memory.record("Put my blog online", outcome="success", steps=STEPS, source="test")
        assert result.status == "queued"
        assert f"Nothing was learned from it yet, and it is {says}: nobody is there" in result.brief
        assert "nobody is there" in record_summary(result)


def test_a_pipe_hears_why_a_trajectory_still_waits(settings: Settings) -> None:
    async def fail() -> str:
        llm = ScriptedLLM(EndpointError("nobody is there"))
        async with Memory.open(settings, connect=connecting(llm)) as memory:
            id = await success(memory)
            await work(memory)
            return id

    id = anyio.run(fail)
    environ = {"REME_MCP_HOME": settings.home, "REME_MCP_EMBEDDER_PROVIDER": "none"}
    shown = CliRunner().invoke(cli, ["queue"], env=environ)
    assert shown.output.splitlines()[0].split("\t")[0] == id
    assert "nobody is there" in shown.stdout


@pytest.mark.parametrize(
    ("trouble", "least_s", "most_s"),
    [
        (EndpointError("busy"), 10, 20),
        (EndpointError("busy", retry_after_s=100), 99, 101),
        (EndpointError("wrong key", is_permanent=True), 3_500, 3_700),
    ],
)
async def test_the_next_try_comes_when_it_may_help(
    settings: Settings, trouble: EndpointError, least_s: float, most_s: float
) -> None:
    async with Memory.open(settings, connect=connecting(ScriptedLLM(trouble))) as memory:
        await success(memory)
        [kept] = await work(memory)
    assert kept.retry_at is not None
    assert timedelta(seconds=least_s) < kept.retry_at - now() < timedelta(seconds=most_s)


async def test_what_fails_inside_is_kept_as_well(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    async with Memory.open(settings, connect=connecting(ScriptedLLM())) as memory:
        await success(memory)
        [kept] = await work(memory)
    assert "failed inside the server" in kept.trouble
    assert "nobody expected the question" in caplog.text


async def test_new_experiences_make_a_new_start(settings: Settings) -> None:
    llm = ScriptedLLM(*[AnswerError("nonsense")] * MAX_TRIES)
    async with Memory.open(settings, connect=connecting(llm)) as memory:
        trajectory_id = await success(memory)
        for _ in range(MAX_TRIES):
            await work(memory)
        await memory.record(trajectory_id=trajectory_id, experiences=[draft(3)], source="test")
        [waiting] = await memory.queued()
    assert (waiting.tries, waiting.retry_at, waiting.trouble) == (0, None, "")


async def test_an_attempt_is_compared_with_earlier_ones_only(settings: Settings) -> None:
    # Both are queued before either is distilled: the later one's turn brings the comparison, once.
    llm = ScriptedLLM(mistakes(lesson(0)), GOOD, patterns(lesson(1)), differences(lesson(2)), GOOD, GOOD)
    one_at_a_time = settings.model_copy(update={"llm": settings.llm.model_copy(update={"concurrency": 1})})
    async with Memory.open(one_at_a_time, connect=connecting(llm)) as memory:
        await memory.record("Put my blog online", outcome="failure", steps="It was empty.", source="test")
        await work(memory)
        await success(memory)
        await work(memory)
        assert [one.kind for one in await memory.pool.page()].count("comparative") == 1
    assert llm.left == 0


async def test_what_cant_be_stored_is_not_asked_for_again_at_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any, **__: Any) -> None:
        raise StoreError("the disk is full")

    llm = ScriptedLLM(patterns(lesson(0)), GOOD)
    async with Memory.open(settings, connect=connecting(llm)) as memory:
        trajectory_id = await success(memory)
        monkeypatch.setattr("reme_mcp.store.store.Writer.put_experiences", full)
        await work(memory)
        assert [one.id for one in await memory.queued()] == [trajectory_id]
        monkeypatch.undo()
        # What the model said is kept: it is not asked again.
        assert [one.status for one in await work(memory)] == ["distilled"]
        assert len(await memory.pool.page()) == 1


async def test_what_fails_after_the_judge_is_tried_again_without_asking_anybody(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    llm = ScriptedLLM(patterns(lesson(0)), GOOD)
    async with Memory.open(settings, connect=connecting(llm)) as memory:
        await success(memory)
        monkeypatch.setattr("reme_mcp.distill.pipeline.neighbours", fail)
        [kept] = await work(memory)
        assert "failed inside the server" in kept.trouble
        monkeypatch.undo()
        assert [one.status for one in await work(memory)] == ["distilled"]
        assert len(await memory.pool.page()) == 1


async def test_what_the_judge_refused_is_judged_again_and_not_distilled_where_storing_it_failed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any, **__: Any) -> None:
        raise StoreError("the disk is full")

    llm = ScriptedLLM(WEAK, WEAK)
    async with Memory.open(settings, connect=connecting(llm)) as memory:
        await memory.record("Bake a cake", outcome="success", steps=STEPS, experiences=[draft(0)], source="test")
        monkeypatch.setattr("reme_mcp.distill.pipeline.learn", full)
        await work(memory)
        monkeypatch.undo()
        [done] = await work(memory)
        assert (done.status, len(rejected_of(done))) == ("distilled", 1)
        assert await memory.pool.page() == []
    assert llm.left == 0


# --- the background ---


async def test_leaving_does_not_wait_for_the_model(settings: Settings) -> None:
    llm = Hanging()
    with anyio.fail_after(DEADLINE_S):
        async with Memory.open(settings, connect=connecting(llm)) as memory:
            await memory.warm_up(download=False)
            await success(memory)
            await llm.asked.wait()
        async with Memory.open(settings, connect=connecting(ScriptedLLM(patterns(lesson(0)), GOOD))) as memory:
            assert [one.status for one in await work(memory)] == ["distilled"]


async def test_a_server_works_on_what_it_is_given_and_on_what_was_left(settings: Settings) -> None:
    async with Memory.open(settings, connect=connecting(ScriptedLLM())) as memory:
        await success(memory, "Put my blog online")
    llm = ScriptedLLM(patterns(lesson(0)), GOOD, patterns(lesson(1)), GOOD)
    async with Memory.open(settings, connect=connecting(llm)) as memory:
        await memory.warm_up(download=False)
        await until_empty(memory)
        await success(memory, "Bake a cake")
        await until_empty(memory)
        assert len(await memory.pool.page()) == 2


async def test_a_server_works_on_when_its_home_was_away_and_is_back(
    home: Path, tmp_path: Path, settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reme_mcp.distill.queue.LOOK_AGAIN_S", 0.01)
    async with Memory.open(settings, connect=connecting(ScriptedLLM(patterns(lesson(0)), GOOD))) as memory:
        await memory.warm_up(download=False)
        shutil.move(home, tmp_path / "away")
        with anyio.fail_after(DEADLINE_S):
            while "the queue can't be worked on: there is no" not in caplog.text:  # noqa: ASYNC110  a log sets no event
                await anyio.sleep(0.01)
        shutil.move(tmp_path / "away", home)
        await success(memory)
        await until_empty(memory)
        assert len(await memory.pool.page()) == 1


async def test_a_process_that_soon_ends_leaves_the_queue_alone(settings: Settings) -> None:
    async with Memory.open(settings, connect=connecting(ScriptedLLM())) as memory:
        await success(memory)
        await memory.warm_up(download=False, work=False)
        await success(memory, "Bake a cake")
        assert len(await memory.queued()) == 2


async def test_two_at_once_distil_each_once(settings: Settings) -> None:
    answers = [answer for number in range(4) for answer in (patterns(lesson(number)), GOOD)]
    llm = ScriptedLLM(*answers)
    one_at_a_time = settings.model_copy(update={"llm": settings.llm.model_copy(update={"concurrency": 1})})
    async with (
        Memory.open(one_at_a_time, connect=connecting(llm)) as first,
        Memory.open(one_at_a_time, connect=connecting(llm)) as second,
    ):
        for number in range(4):
            await success(first, f"Do the thing number {number}")
        await first.warm_up(download=False)
        await second.warm_up(download=False)
        await until_empty(first)
        assert len(await first.pool.page()) == 4
    assert llm.left == 0


@pytest.mark.parametrize(("answer", "status"), [(patterns(lesson(0)), "distilled"), (EndpointError("away"), "queued")])
async def test_it_waits_for_the_model_where_the_settings_say_so(settings: Settings, answer: Any, status: str) -> None:
    told: list[str] = []

    async def tell(what: str) -> None:
        told.append(what)

    waiting = settings.model_copy(update={"llm": settings.llm.model_copy(update={"wait": True})})
    async with Memory.open(waiting, connect=connecting(ScriptedLLM(answer, GOOD))) as memory:
        with anyio.fail_after(DEADLINE_S):
            result = await memory.record("Put my blog online", outcome="success", steps=STEPS, source="test", tell=tell)
    assert result.status == status
    assert told[0] == "the model is distilling"
