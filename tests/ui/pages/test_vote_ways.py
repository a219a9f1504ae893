"""The page Vote in a browser: who comes in, what is refused, and the ways out."""

from __future__ import annotations

import pytest

from service.services import Services
from tests.ui.pages.test_vote_page import DESKTOP, choices, served, wait_until
from tests.ui.visitor import browsing
from tests.ui.voting import UNLOCKED, Voter, fill_study

__all__ = ["served"]
pytestmark = pytest.mark.needs("chromium")


def test_a_refused_answer_is_told_and_its_pair_comes_again(served: tuple[Services, str]) -> None:
    services, address = served
    fill_study(services.store, training=False, ballots_per_participant=4, check_share=0.0, repeat_share=0.0)
    refusal = {"status": 403, "content_type": "application/json", "body": '{"error": "The ballot is too old."}'}
    with browsing(*DESKTOP) as page:
        voter = Voter(page, address)
        voter.agree()
        page.wait_for_function(UNLOCKED)
        shown = voter.ballot_id()
        page.route("**/run/vote", lambda route: route.fulfill(**refusal), times=1)  # type: ignore[arg-type]
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector("text=The ballot is too old.")
        page.keyboard.press("Enter")
        page.wait_for_function(f"{UNLOCKED} && document.querySelector('#npo-study').dataset.shown === '{shown}'")
        page.keyboard.press("ArrowRight")
        wait_until(lambda: choices(services.store) == {"right": 1})
        assert voter.answer_all() == 3


def test_who_leaves_may_stop_for_now_or_withdraw_and_keeps_the_code(served: tuple[Services, str]) -> None:
    services, address = served
    fill_study(services.store, training=False, ballots_per_participant=4, check_share=0.0, repeat_share=0.0)
    with browsing(*DESKTOP) as page:
        voter = Voter(page, address)
        voter.agree()
        page.wait_for_function(UNLOCKED)
        page.keyboard.press("ArrowLeft")
        wait_until(lambda: choices(services.store) == {"left": 1})
        page.click("#npo-vote-leave")
        page.click("text=Stop here")
        code = page.locator(".npo-vote-code").inner_text()
        assert choices(services.store) == {"left": 1}
        page.reload()
        page.wait_for_selector("text=2 of 4")
        page.click("#npo-vote-leave")
        page.click("text=Withdraw my answers")
        page.get_by_role("button", name="Withdraw", exact=True).click()
        page.wait_for_selector("text=You have withdrawn")
        page.reload()
        page.wait_for_selector("text=You have withdrawn")
        assert page.locator(".npo-vote-code").inner_text() == code
    assert choices(services.store) == {}
    assert services.store.participant_of_code(code)


def test_two_workers_at_one_browser_are_two_people(served: tuple[Services, str]) -> None:
    services, address = served
    fill_study(services.store, training=False, ballots_per_participant=4, check_share=0.0, repeat_share=0.0)
    with browsing(*DESKTOP) as page:
        page.set_default_timeout(30_000)
        for number, pairs in (("1", "1 of 4"), ("2", "1 of 4"), ("1", "2 of 4")):
            page.goto(f"{address}vote?PROLIFIC_PID=worker{number}&SESSION_ID=s{number}")
            page.wait_for_selector(f"#npo-vote-agree, :text('{pairs}')")
            if page.locator("#npo-vote-agree").count():
                page.keyboard.press("Enter")
            page.wait_for_selector(f"text={pairs}")
            page.wait_for_function(UNLOCKED)
            before = sum(choices(services.store).values())
            page.keyboard.press("ArrowLeft")
            wait_until(lambda before=before: sum(choices(services.store).values()) == before + 1)  # type: ignore[misc]
        page.goto(f"{address}vote?PROLIFIC_PID={{{{%PROLIFIC_PID%}}}}")
        page.wait_for_selector("#npo-vote-agree")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=which is no id")
    assert services.store.study_progress()[0].participants == 2
