"""The rules by which a transcript says how it ended, each by its name."""

from __future__ import annotations

import pytest

from reme_mcp.transcripts.outcome import Inferred, infer
from reme_mcp.transcripts.transcript import Step

TASK = Step("user", "Repair the importer, please. It should work with empty files.")
WORK = (Step("call", '{"command":"sed -i s/a/b/ x"}', "Bash"), Step("result", "", "Bash"))


def after(words: str) -> Inferred:
    return infer([TASK, *WORK, Step("assistant", "Done."), Step("user", words)])


def runs(text: str, *, command: str = "pytest -q", failed: bool = False, tool: str = "Bash") -> tuple[Step, Step]:
    return Step("call", f'{{"command":"{command}"}}', tool), Step("result", text, tool, failed)


# --- words ---


@pytest.mark.parametrize(
    "words",
    [
        "thanks",
        "Thank you so much!",
        "It works",
        "works now, great",
        "Perfect.",
        "that's fixed",
        "Everything is green and it works.",
        "LGTM, ship it",
        "谢谢，成功了",
        "Great. Can you also explain it?",
    ],
)
def test_words_of_thanks_are_a_success(words: str) -> None:
    got = after(words)
    assert (got.outcome, got.rule) == ("success", "words")


@pytest.mark.parametrize(
    "words",
    [
        "still fails",
        "It still doesn't work",
        "that didn't help",
        "It does not work on empty files.",
        "this is wrong",
        "same error as before",
        "Wrong. I give up.",
        "It is still broken, thanks anyway",
        "revert everything",
        "还是报错",
    ],
)
def test_words_of_failure_are_a_failure(words: str) -> None:
    got = after(words)
    assert (got.outcome, got.rule) == ("failure", "words")


@pytest.mark.parametrize(
    "words",
    [
        "Does it work?",
        "Make sure it works",
        "If it still fails, tell me",
        "Now write the documentation",
        "Thanks. It still fails though.",
        "I want this fixed",
        "Can you please say thanks to the author",
        "",
    ],
)
def test_questions_wishes_and_words_for_both_say_nothing(words: str) -> None:
    assert after(words) == Inferred(None, "none")


def test_the_first_words_are_the_task_and_no_verdict() -> None:
    assert infer([Step("user", "It still fails with an error"), *WORK]).outcome is None
    assert infer([Step("user", "It still fails"), Step("user", "still fails")]).outcome is None


def test_words_that_more_work_followed_are_out_of_date() -> None:
    assert infer([TASK, *WORK, Step("user", "still fails")]).outcome == "failure"
    assert infer([TASK, *WORK, Step("user", "still fails"), *WORK]).outcome is None
    assert infer([TASK, *WORK, Step("user", "still fails"), Step("assistant", "Sorry.")]).outcome == "failure"


def test_words_weigh_more_than_tests() -> None:
    steps = [TASK, *runs("3 passed"), Step("user", "It still fails.")]
    assert infer(steps) == Inferred("failure", "words", "It still fails.")
    assert infer(steps[:-1]) == Inferred("success", "tests", "3 passed")


# --- tests ---


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("python -m pytest -q", "..\n===== 12 passed, 1 skipped in 0.3s ====="),
        ("python3 -m unittest", "Ran 3 tests in 0.001s\n\nOK"),
        ("npm test", "Tests:       5 passed, 5 total"),
        ("go test ./...", "ok  \texample.com/pkg\t0.01s"),
        ("cargo test", "test result: ok. 7 passed; 0 failed; 0 ignored"),
        ("bundle exec rspec", "12 examples, 0 failures"),
        ("make -j4 test", "Exit code: 0\nOutput:\nfine"),
    ],
)
def test_tests_that_passed_are_a_success(command: str, text: str) -> None:
    got = infer([TASK, *runs(text, command=command)])
    assert (got.outcome, got.rule) == ("success", "tests")


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("pytest", "== 1 failed, 12 passed in 0.3s =="),
        ("pytest", "1 error in 0.1s"),
        ("python -m unittest", "FAILED (failures=1)"),
        ("yarn test", "Tests:       1 failed, 5 passed, 6 total"),
        ("go test ./...", "--- FAIL: TestX\nFAIL\texample.com/pkg"),
        ("cargo test", "test result: FAILED. 6 passed; 1 failed"),
        ("mvn -q verify", "[INFO] BUILD FAILURE"),
        ("make check", '{"output":"","metadata":{"exit_code":2}}'),
        ("pytest", "Exit code 4\nno such file"),
    ],
)
def test_tests_that_failed_are_a_failure(command: str, text: str) -> None:
    got = infer([TASK, *runs(text, command=command)])
    assert (got.outcome, got.rule) == ("failure", "tests")


def test_a_call_that_failed_without_an_exit_status_was_perhaps_never_run() -> None:
    assert infer([TASK, *runs("This command requires approval", failed=True)]).outcome is None
    assert infer([TASK, *runs("Exit code 1\nboom", failed=True)]).outcome == "failure"


def test_the_last_run_decides() -> None:
    assert infer([TASK, *runs("1 failed"), *WORK, *runs("2 passed")]).outcome == "success"
    assert infer([TASK, *runs("2 passed"), *WORK, *runs("1 failed")]).outcome == "failure"


@pytest.mark.parametrize("tool", ["Edit", "Write", "MultiEdit", "apply_patch", "functions.apply_patch"])
def test_a_run_before_the_last_edit_is_out_of_date(tool: str) -> None:
    assert infer([TASK, *runs("2 passed"), Step("call", "{}", tool)]).outcome is None
    assert infer([TASK, Step("call", "{}", tool), *runs("2 passed")]).outcome == "success"


def test_calls_at_the_same_time_keep_their_results_apart() -> None:
    steps = [
        Step("call", '{"command":"ls"}', "Bash"),
        Step("call", '{"command":"pytest"}', "Bash"),
        Step("result", "1 failed", "Bash"),
        Step("result", "2 passed", "Bash"),
    ]
    assert infer([TASK, *steps]).outcome == "success"


@pytest.mark.parametrize("command", ["cat pytest_notes.md", "ls tests", "git commit -m contest"])
def test_what_is_no_run_of_tests_says_nothing(command: str) -> None:
    assert infer([TASK, *runs("3 passed", command=command)]).outcome is None


def test_text_about_tests_that_is_written_to_a_file_is_no_run() -> None:
    assert infer([TASK, *runs("3 passed", tool="Write")]).outcome is None


# --- neither ---


def test_what_was_interrupted_has_no_outcome() -> None:
    steps = [TASK, *runs("2 passed")]
    assert infer(steps, is_interrupted=True).outcome is None
    assert infer(steps, is_interrupted=False).outcome == "success"


def test_silence_is_no_outcome() -> None:
    assert infer([]) == Inferred(None, "none")
    assert infer([TASK, *WORK, Step("assistant", "All tests pass, I am done.")]) == Inferred(None, "none")
