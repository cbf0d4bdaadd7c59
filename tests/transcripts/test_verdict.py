"""What the words of a user say about the work before them, in many languages."""

from __future__ import annotations

import pytest

from reme_mcp.transcripts.verdict import next_request, verdict_of

WORKS = (
    "thanks",
    "It works",
    "works now, great",
    "that's fixed",
    "Everything is green and it works.",
    "LGTM, ship it",
    "谢谢，成功了",
    "Great. Can you also explain it?",
    "super, läuft jetzt, danke",
    "Danke, klappt!",
    "ça marche, merci",
    "parfait",
    "funciona, gracias",
    "¡Perfecto! Ya funciona.",
    "obrigado, funcionou",
    "grazie, ora funziona",
    "werkt nu, bedankt",
    "fungerar nu, tack",
    "dzięki, działa",
    "спасибо, работает",
    "çalışıyor, teşekkürler",
    "berhasil, terima kasih",
    "chạy được rồi, cảm ơn",
    "شكرا، يعمل الآن",
    "धन्यवाद, अब काम कर रहा है",
    "搞定了，谢谢",
    "没问题了，多谢",
    "ありがとう、動きました",
    "直りました！",
    "감사합니다, 잘 됩니다",
    "👍",
    "it's ugly but it works",
    "Deployed fine. Thanks!",
    "ok thanks",
    "all good, thanks",
    "Jetzt geht's, danke",
    "yes! finally works",
    "no more errors, it works now",
    "The build is green now, thank you",
    "c'est bon, merci beaucoup",
    "works like a charm",
    "修好了",
    "可以了，谢谢",
    "うまくいきました。ありがとうございます。",
    "Funktioniert einwandfrei.",
    "ya está, muchas gracias",
    "tests pass now, awesome",
    "Klasse, genau so wollte ich das",
    "That did the trick",
    "doesn't crash anymore, thanks",
)
FAILS = (
    "still fails",
    "It still doesn't work",
    "that didn't help",
    "this is wrong",
    "same error as before",
    "Wrong. I give up.",
    "It is still broken, thanks anyway",
    "revert everything",
    "还是报错",
    "that breaks everything, revert",
    "geht immer noch nicht",
    "Das funktioniert nicht, der gleiche Fehler",
    "nein, das ist falsch",
    "jetzt ist alles kaputt",
    "Danke, aber es geht nicht",
    "ça ne marche pas",
    "toujours la même erreur",
    "no funciona",
    "sigue sin funcionar",
    "não funciona",
    "deu erro, não funcionou",
    "non funziona",
    "werkt niet",
    "fungerar inte",
    "nie działa",
    "не работает",
    "всё ещё не работает",
    "çalışmıyor",
    "tidak berhasil",
    "không hoạt động",
    "لا يعمل",
    "काम नहीं कर रहा",
    "不行",
    "没解决，还是一样",
    "動きません",
    "まだエラーが出ます",
    "안 돼요",
    "여전히 오류가 나요",
    "👎",
    "super, jetzt ist alles kaputt",
    "works on mac but it crashes on linux",
    "Rückgängig machen, bitte",
    "undo that please",
    "you broke the build",
    "mach das rückgängig",
    "回滚吧",
    "元に戻してください",
    "The deploy failed again",
    "nope, same exception",
    "annule tout, ça casse tout",
    "deshaz los cambios",
    "it does not compile",
    "nothing works anymore",
    "Nein, klappt leider nicht",
    "that made it worse",
)
NEITHER = (
    "Does it work?",
    "Make sure it works",
    "If it still fails, tell me",
    "Now write the documentation",
    "Thanks. It still fails though.",
    "I want this fixed",
    "Can you please say thanks to the author",
    "",
    "Deploy it to staging, thanks",
    "Now write the docs please, thanks",
    "ok",
    "go on",
    "Danke im Voraus",
    "Funktioniert es jetzt?",
    "wenn es läuft, sag Bescheid",
    "¿funciona?",
    "部署到服务器，谢谢",
    "请修好",
    "I think it works",
    "it works, right?",
    "it should work now",
    "does that work for you",
    "What does the flag do?",
    "Add a test that fails when the file is empty",
    'The user said "it works"',
    "why is it failing",
    "thanks but I wanted tabs",
    "Schreib jetzt die Doku, danke",
    "it works except on Windows",
    "si ça marche, dis-le moi",
    "能用吗",
    "動きますか？",
    "it failed before but now it works",
    "Make the button work",
    "Let me check",
    "stop",
    "pas encore testé",
    "Use the same approach for the other file",
    "Explain how it works",
    "show me what changed",
    "不用谢",
    "maybe it works",
)


@pytest.mark.parametrize("words", WORKS)
def test_praise_thanks_and_reports_of_success_are_a_success(words: str) -> None:
    said = verdict_of(words)
    assert said is not None
    assert said.outcome == "success"


@pytest.mark.parametrize("words", FAILS)
def test_reports_of_failure_and_orders_to_take_back_are_a_failure(words: str) -> None:
    said = verdict_of(words)
    assert said is not None
    assert said.outcome == "failure"


@pytest.mark.parametrize("words", NEITHER)
def test_requests_questions_doubts_and_politeness_say_nothing(words: str) -> None:
    assert verdict_of(words) is None


@pytest.mark.parametrize(
    ("words", "rest"),
    [
        ("works, thanks! Now add dark mode", "Now add dark mode"),
        ("thanks, now fix the logout bug", "now fix the logout bug"),
        ("谢谢，成功了。另外请修复登出", "另外请修复登出"),
        ("Please fix the logout bug", "Please fix the logout bug"),
    ],
)
def test_the_next_request_begins_behind_the_praise(words: str, rest: str) -> None:
    place = next_request(words)
    assert place is not None
    assert words[place:].strip() == rest


@pytest.mark.parametrize("words", ["thanks, go ahead", "it works", "works", "perfekt, mach weiter"])
def test_praise_alone_and_leave_to_go_on_ask_for_nothing(words: str) -> None:
    assert next_request(words) is None


def test_what_stands_in_the_middle_of_a_long_text_is_no_verdict() -> None:
    filler = "A line of a log that was pasted.\n" * 100
    assert verdict_of(f"{filler}it works\n{filler}") is None
    assert verdict_of(f"it works\n{filler}") is not None
    assert verdict_of(f"{filler}it works") is not None
