"""What of two texts counts as a difference."""

from __future__ import annotations

import pytest

from reme_mcp.distill.difference import agreement, difference, may_be_synonyms


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("Build the site first, then upload it.", "First build the site and then upload it."),
        ("Stop the service before the restore.", "Before the restore, stop the service."),
        ("Restart the service after the restore.", "After the restore, restart the service."),
        ("Clear the cache and restart nginx.", "Restart nginx and clear the cache."),
        ("Avoid nested quantifiers.", "No nested quantifiers."),
        ("Build the site, upload it and purge the cache.", "Build the site, upload it."),
        ("Wait for 30 seconds.", "You should wait 30 seconds."),
        ("Zuerst bauen, dann hochladen.", "Bauen, dann hochladen."),
        ("先构建网站,再上传文件。", "先构建网站,然后再上传文件。"),
    ],
)
def test_what_is_told_anew_says_nothing_else(older: str, newer: str) -> None:
    assert difference(older, newer) == ""


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("Clear the cache.", "Don't clear the cache."),
        ("Clear the cache.", "Don’t clear the cache."),
        ("Clear the cache, not the queue.", "Clear the queue, not the cache."),
        ("Stop the service before the restore.", "Stop the service after the restore."),
        ("Build the site, then upload it.", "Upload the site, then build it."),
        ("Copy the file from the server to the laptop.", "Copy the file from the laptop to the server."),
        ("Wait 30 seconds.", "Wait 90 seconds."),
        ("List it with ls -a.", "List it with ls -A."),
        ("Call get_stock.", "Call get_price."),
        ("The file is in /etc/nginx.", "The file is in /opt/nginx."),
        ("Ask Maria.", "Ask Jonas."),
        ("The endpoint works.", "The endpoint worked."),
        ("The endpoint is open.", "The endpoint was open."),
        ("You must sign it.", "You may sign it."),
        ("Restart the runners.", "Restart only the runners."),
        ("Build the site.", "Build the site and purge the cache."),
        ("Leere den Cache vor dem Hochladen.", "Leere den Cache nach dem Hochladen."),
        ("Vide le cache.", "Ne vide pas le cache."),
        ("先上传文件,再清除缓存。", "先清除缓存,再上传文件。"),
        ("上传之后清除缓存。", "上传之前清除缓存。"),
        ("上传之后清除缓存。", "上传之后不要清除缓存。"),
    ],
)
def test_what_negates_orders_limits_or_names_another_thing_is_decisive(older: str, newer: str) -> None:
    assert difference(older, newer)


def test_names_and_words_of_one_series_are_no_synonyms() -> None:
    assert may_be_synonyms("remove", "delete")
    assert not may_be_synonyms("Maria", "Jonas")
    assert not may_be_synonyms("upstream", "downstream")
    assert not may_be_synonyms("200", "220")


def test_agreement_is_the_share_of_telling_words_in_common() -> None:
    assert agreement("restart the server", "restart a server") == 1
    assert agreement("restart the server", "boil an egg") == 0
