"""Small sessions with what a person reads in them: the tasks, and how each ended.

`TUNE` was looked at while the rules were made, `REPORT` was written before they were tried on it.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from reme_mcp.transcripts.sessions import Format
from tests.session_files import codex_says, item, jsonl, returns, says, user, uses

Expected = tuple[str, str | None]


class Case(NamedTuple):
    """A session and what is in it."""

    name: str
    format: Format
    data: bytes
    expected: tuple[Expected, ...]


def claude(name: str, *entries: object, is_: tuple[Expected, ...]) -> Case:
    return Case(name, "claude-code", jsonl(*_numbered(entries)), is_)


def codex(name: str, *entries: object, is_: tuple[Expected, ...]) -> Case:
    return Case(name, "codex", jsonl(*entries), is_)


def _numbered(entries: tuple[object, ...]) -> list[object]:
    """Give every entry of Claude Code an id of its own."""
    return [e | {"uuid": f"n-{n}"} if isinstance(e, dict) and "uuid" in e else e for n, e in enumerate(entries)]


def work(number: int = 2, command: str = "make", result: str = "done") -> tuple[dict[str, Any], dict[str, Any]]:
    return uses("Bash", number, command=command), returns(result, number + 1, of=number)


def edit(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    return uses("Edit", number, file_path="a.py"), returns("ok", number + 1, of=number)


def blocks(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def queued(prompt: object, mode: str = "prompt") -> dict[str, Any]:
    return {"type": "attachment", "attachment": {"type": "queued_command", "commandMode": mode, "prompt": prompt}}


def calls(number: int = 1, command: str = "make", output: str = "done") -> tuple[dict[str, Any], dict[str, Any]]:
    arguments = json.dumps({"command": ["bash", "-lc", command]})
    return (
        item("function_call", name="shell", arguments=arguments, call_id=f"c{number}"),
        item("function_call_output", call_id=f"c{number}", output=output),
    )


def codex_user(*texts: str) -> dict[str, Any]:
    return item("message", role="user", content=[{"type": "input_text", "text": text} for text in texts])


BOUNDARY = {"type": "system", "subtype": "compact_boundary", "content": "Conversation compacted"}
SUMMARY = (
    "This session is being continued from a previous conversation that ran out of context.\n\nAnalysis: it failed."
)
RENAME = "Rename the config loader to settings"
RETRY = "Add a retry to the uploader"

TUNE = (
    claude(
        "a selection in the editor says that it fails",
        user(blocks("<ide_selection>The user selected:\nit still fails, revert everything\n</ide_selection>", RENAME)),
        *work(),
        user("perfect, that works"),
        is_=((RENAME, "success"),),
    ),
    claude(
        "a selection that closes its own tag",
        user(blocks(RENAME)),
        *work(),
        user(blocks("<ide_selection>x</ide_selection> it works, thanks</ide_selection>", "no, same error as before")),
        is_=((RENAME, "failure"),),
    ),
    claude(
        "context in front of the words in one text",
        user(f"<editor_state>\n<file>a.py</file>\n</editor_state>\n\n{RENAME}"),
        *work(),
        user("thanks!"),
        is_=((RENAME, "success"),),
    ),
    claude(
        "a tag that nobody knows yet",
        user(RETRY),
        *work(),
        user("Works now, thank you."),
        user("<monitor-event>build failed, still broken</monitor-event>"),
        is_=((RETRY, "success"),),
    ),
    claude(
        "a summary without its flag",
        user(RETRY),
        *work(),
        BOUNDARY,
        user(SUMMARY),
        *work(6),
        user("Sehr gut, jetzt läuft es. Danke!"),
        is_=((RETRY, "success"),),
    ),
    claude(
        "words queued during a run of tests",
        user(RETRY),
        uses("Bash", 2, command="pytest -q"),
        queued("das geht immer noch nicht"),
        returns("4 passed in 0.1s", 3, of=2),
        says("I see.", 4),
        is_=((RETRY, "failure"),),
    ),
    claude(
        "a queued notice of a task is not the user's",
        user(RETRY),
        *work(2, "pytest -q", "4 passed in 0.1s"),
        queued("<task-notification>it failed</task-notification>", "task-notification"),
        says("Done.", 4),
        is_=((RETRY, "success"),),
    ),
    claude(
        "that breaks everything, revert",
        user(RETRY),
        *edit(2),
        user("that breaks everything, revert"),
        *work(6, "git checkout .", ""),
        says("Reverted.", 9),
        is_=((RETRY, "failure"),),
    ),
    claude(
        "two tasks, the second fails",
        user(RENAME),
        *work(),
        user("great, that works!"),
        says("Glad to hear.", 5),
        user(RETRY),
        *work(6),
        user("that doesn't work at all"),
        is_=((RENAME, "success"), (RETRY, "failure")),
    ),
    claude(
        "two tasks in one breath",
        user(RENAME),
        *work(),
        user(f"Funktioniert, danke! {RETRY}"),
        *work(6),
        user("immer noch derselbe Fehler"),
        is_=((RENAME, "success"), (RETRY, "failure")),
    ),
    claude(
        "a few words after success are no task",
        user(RENAME),
        *work(),
        user("it works, thanks"),
        user("commit it"),
        *work(6, "git commit", ""),
        is_=((RENAME, "success"),),
    ),
    claude(
        "praise for a plan",
        user(RENAME),
        says("First I would move the file, then its callers.", 1),
        user("perfect, go ahead and implement it"),
        *work(),
        says("Done.", 5),
        is_=((RENAME, None),),
    ),
    claude(
        "a slash command is what was asked",
        user(
            "<command-message>fix-issue</command-message>\n<command-name>/fix-issue</command-name>\n"
            "<command-args>7 quickly</command-args>"
        ),
        user("Look at issue 7 and mend it.", 1, isMeta=True),
        *work(),
        user("thanks, it works"),
        is_=(("/fix-issue 7 quickly", "success"),),
    ),
    claude(
        "a request that the user has tagged",
        user("<task>Rename the config loader to settings</task>"),
        *work(),
        user("lovely, all green now"),
        is_=((RENAME, "success"),),
    ),
    codex(
        "instructions, environment and words as three blocks",
        codex_user(
            "# AGENTS.md instructions\n\n<INSTRUCTIONS>\nBe brief. It works.\n</INSTRUCTIONS>",
            "<environment_context>\n<cwd>/w</cwd>\n</environment_context>",
            RETRY,
        ),
        *calls(),
        codex_user("谢谢，可以了"),
        is_=((RETRY, "success"),),
    ),
    codex(
        "files, then the request",
        codex_user(f"# Files mentioned by the user:\n\n## a.png: /w/a.png\n\n## My request for Codex:\n{RETRY}\n"),
        *calls(),
        codex_user(
            "# Context from my IDE setup:\n\n## Active selection: thanks, works\n\n## My request for Codex:\nno luck"
        ),
        is_=((RETRY, "failure"),),
    ),
    codex(
        "context without a request",
        codex_user(RETRY),
        *calls(1, "cargo test", "test result: ok. 7 passed; 0 failed"),
        codex_user("# Context from my IDE setup:\n\n## Open tabs:\n- it fails: a.rs\n"),
        is_=((RETRY, "success"),),
    ),
    codex(
        "a shell command of the user's",
        codex_user(RETRY),
        *calls(),
        codex_user("merci, ça marche"),
        codex_user("<user_shell_command>\n<command>ls</command>\nerror: still broken\n</user_shell_command>"),
        is_=((RETRY, "success"),),
    ),
    codex(
        "stopped by an event",
        codex_user(RETRY),
        *calls(1, "pytest", "3 passed in 1s"),
        {"type": "event_msg", "payload": {"type": "turn_aborted", "reason": "interrupted"}},
        is_=((RETRY, None),),
    ),
    codex(
        "an image between its tags",
        item(
            "message",
            role="user",
            content=[
                {"type": "input_text", "text": "<image name=[Image #1]>"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
                {"type": "input_text", "text": "</image>"},
                {"type": "input_text", "text": RETRY},
            ],
        ),
        *calls(),
        codex_user("ありがとう、直りました"),
        is_=((RETRY, "success"),),
    ),
    codex(
        "a question for thanks",
        codex_user(RETRY),
        *calls(),
        codex_user("does it work now?"),
        codex_says("assistant", "I believe so."),
        is_=((RETRY, None),),
    ),
    codex(
        "words after the tests weigh more",
        codex_user(RETRY),
        *calls(1, "npm test", "Tests: 5 passed, 5 total"),
        codex_user("it still crashes on start"),
        *calls(2, "ls", "a"),
        is_=((RETRY, None),),
    ),
    codex(
        "a new task is announced",
        codex_user(RENAME),
        *calls(1, "go test ./...", "ok  \texample.com/a\t0.1s"),
        codex_user(f"Next task: {RETRY}"),
        *calls(2, "go test ./...", "--- FAIL: TestX\nFAIL"),
        is_=((RENAME, "success"), (f"Next task: {RETRY}", "failure")),
    ),
    codex(
        "polite, and no verdict",
        codex_user(RETRY),
        *calls(),
        codex_user("now write the changelog entry for it, thanks"),
        codex_says("assistant", "Which version?"),
        is_=((RETRY, None),),
    ),
)

REPORT = (
    claude(
        "diagnostics of the editor",
        user(blocks(RENAME, '<ide_diagnostics>[{"message": "it is broken"}]</ide_diagnostics>')),
        *work(),
        user(blocks("<ide_diagnostics>error: same error</ide_diagnostics>", "yes, everything is green now")),
        is_=((RENAME, "success"),),
    ),
    claude(
        "a reminder behind the words",
        user(f"{RENAME}\n<system-reminder>\nThanks, it works.\n</system-reminder>"),
        *work(),
        is_=((RENAME, None),),
    ),
    claude(
        "a mark of a later version",
        user(RENAME),
        *work(),
        user("that works, thanks"),
        user("It still fails with the same error", 7, isSynthetic=True),
        is_=((RENAME, "success"),),
    ),
    claude(
        "an origin that is no human",
        user(RENAME),
        *work(),
        user("still broken"),
        user("Great, everything works, thanks!", 7, origin={"kind": "coordinator"}),
        is_=((RENAME, "failure"),),
    ),
    claude(
        "HTML that the user pasted is the user's",
        user("<div>Hi</div> is not centred on the page, centre it"),
        *work(),
        user("parfait, merci"),
        is_=(("<div>Hi</div> is not centred on the page, centre it", "success"),),
    ),
    claude(
        "queued blocks",
        user(RENAME),
        uses("Bash", 2, command="make"),
        queued([{"type": "text", "text": "gracias, ya funciona"}]),
        returns("ok", 3, of=2),
        is_=((RENAME, "success"),),
    ),
    claude(
        "three tasks",
        user(RENAME),
        *work(),
        user("thanks, works"),
        user(RETRY),
        *work(6),
        user("Danke, passt. Schreib noch einen Test für leere Dateien"),
        *work(10, "pytest", "1 failed, 3 passed"),
        is_=((RENAME, "success"), (RETRY, "success"), ("Schreib noch einen Test für leere Dateien", "failure")),
    ),
    claude(
        "a correction is the same task",
        user(RENAME),
        *work(),
        user("no, that's wrong, keep the old name as an alias"),
        *work(6),
        user("super, so passt es"),
        is_=((RENAME, "success"),),
    ),
    claude(
        "a question after success",
        user(RENAME),
        *work(),
        user("works like a charm, thanks"),
        user("what does the second argument of that function do?"),
        says("It sets the path.", 8),
        is_=((RENAME, "success"), ("what does the second argument of that function do?", None)),
    ),
    claude(
        "success, then it fails after all",
        user(RENAME),
        *work(),
        user("it works, thanks"),
        says("Good.", 5),
        user("hm, on Windows it still crashes"),
        is_=((RENAME, "failure"),),
    ),
    claude(
        "no words at the end, tests failed",
        user(RENAME),
        *edit(2),
        *work(6, "python -m pytest -q", "FAILED tests/test_a.py::test_b\n1 failed, 9 passed in 2s"),
        says("One test fails still.", 9),
        is_=((RENAME, "failure"),),
    ),
    claude(
        "the assistant says that it works",
        user(RENAME),
        *work(),
        says("Everything works perfectly now, thanks for your patience!", 5),
        is_=((RENAME, None),),
    ),
    claude(
        "quoted words are of others",
        user(RENAME),
        *work(),
        user('the page shows "it works, thanks" in the header'),
        is_=((RENAME, None),),
    ),
    claude(
        "a log is pasted",
        user(RENAME),
        *work(),
        user("```\nok it works\n```\ngeht bei mir nicht"),
        is_=((RENAME, "failure"),),
    ),
    claude(
        "Korean thanks",
        user(RENAME),
        *work(),
        user("감사합니다. 잘 작동합니다!"),
        is_=((RENAME, "success"),),
    ),
    codex(
        "a notification with attributes",
        codex_user(RETRY),
        *calls(),
        codex_user("esto no funciona"),
        codex_user('<subagent_notification id="3">thanks, all works</subagent_notification>'),
        is_=((RETRY, "failure"),),
    ),
    codex(
        "the request of another product",
        codex_user(f"# Context from my IDE setup:\n\n## Open tabs:\n- a.ts\n\n## My request for Assistant:\n{RETRY}"),
        *calls(),
        codex_user("that fixed it, cheers"),
        is_=((RETRY, "success"),),
    ),
    codex(
        "the older form, without envelopes",
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "<user_instructions>x</user_instructions>"}],
        },
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": RETRY}]},
        *(entry["payload"] for entry in calls(1, "cargo test", "test result: FAILED. 1 failed")),
        is_=((RETRY, "failure"),),
    ),
    codex(
        "a summary of an earlier model",
        codex_user(RETRY),
        *calls(),
        codex_user("Another language model started to solve this problem and produced a summary: it failed."),
        *calls(2),
        codex_user("grazie, adesso funziona"),
        is_=((RETRY, "success"),),
    ),
    codex(
        "a rollback in Chinese",
        codex_user(RETRY),
        *calls(),
        codex_user("不行，全坏了，回滚吧"),
        *calls(2, "git reset --hard", ""),
        is_=((RETRY, "failure"),),
    ),
    codex(
        "a condition is no verdict",
        codex_user(RETRY),
        *calls(),
        codex_user("if it works, push it"),
        codex_says("assistant", "I have no access."),
        is_=((RETRY, None),),
    ),
    codex(
        "Portuguese, two tasks",
        codex_user(RENAME),
        *calls(),
        codex_user("Funcionou, obrigado!"),
        codex_user("Agora adicione testes para o uploader"),
        *calls(2),
        codex_user("não funciona, dá o mesmo erro"),
        is_=((RENAME, "success"), ("Agora adicione testes para o uploader", "failure")),
    ),
    codex(
        "a doubt",
        codex_user(RETRY),
        *calls(),
        codex_user("not sure whether it works, will look tomorrow"),
        is_=((RETRY, None),),
    ),
    codex(
        "praise with a reservation",
        codex_user(RETRY),
        *calls(),
        codex_user("looks good, but the second page is missing"),
        is_=((RETRY, None),),
    ),
    codex(
        "Russian",
        codex_user(RETRY),
        *calls(),
        codex_user("всё ещё не работает"),
        is_=((RETRY, "failure"),),
    ),
)
