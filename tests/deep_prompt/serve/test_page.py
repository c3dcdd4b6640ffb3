"""The page in a real browser: `make test-page`. PAGE_SCREENSHOTS names a folder for screenshots."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deep_prompt.serve.settings import Settings
from tests.support.serving import (
    FORM_HEADS,
    HEADS,
    Running,
    make_text_artifacts,
    serving,
    serving_folders,
)

pytestmark = pytest.mark.page
CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
SCREENSHOTS = os.environ.get("PAGE_SCREENSHOTS")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        # The sandbox needs privileges that containers lack; only the tests' own page is loaded.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Page:
    """The page in a tab. `problems` are the errors on the console, and requests to other hosts."""

    def __init__(self, browser: Any, server: Running, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}} | options)
        self.tab = self.context.new_page()
        self.problems: list[str] = []
        self.tab.on("console", self._console)
        self.tab.on("pageerror", lambda error: self.problems.append(str(error)))
        self.tab.on("request", self._request)
        self.server = server
        self.open("")

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.server.url, "data:", "blob:")):
            self.problems.append(request.url)

    def open(self, fragment: str) -> None:
        self.tab.goto("about:blank")
        self.tab.goto(f"{self.server.url}/{fragment}")
        self.wait()

    def wait(self) -> None:
        """Wait for the answers to the last request."""
        self.tab.wait_for_selector("#results[aria-busy=false]", state="attached")

    def status(self) -> str:
        return str(self.tab.inner_text("#status"))

    def choose(self, task: str) -> Any:
        """Choose the tab of a task, and wait for its answer; returns its fields."""
        self.tab.get_by_role("tab", name=task, exact=True).click()
        self.wait()
        return self.fields(task)

    def fields(self, task: str) -> Any:
        return self.tab.locator("fieldset", has_text=f"Input of {task}")

    def predict(self) -> dict[str, Any]:
        """Press the button; returns the row that is sent, of one task."""
        with self.tab.expect_request("**/v1/predict") as sent:
            self.tab.click("button.primary")
        self.wait()
        (row,) = sent.value.post_data_json["rows"]
        return dict(row)

    def card(self, task: str) -> Any:
        return self.tab.locator(f".card[data-task={task}]")

    def screenshot(self, name: str) -> None:
        if SCREENSHOTS:
            self.tab.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)


def opened(browser: Any, server: Running) -> Iterator[Page]:
    """A page of a server, which is closed after the test and must have no problems."""
    page = Page(browser, server)
    yield page
    page.context.close()
    assert not page.problems


@pytest.fixture
def page(browser: Any, server: Running) -> Iterator[Page]:
    yield from opened(browser, server)


@pytest.fixture(scope="module")
def other_inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of the tasks with fields of their own, and of one without."""
    folder = tmp_path_factory.mktemp("other_inputs")
    artifacts = make_text_artifacts(folder, FORM_HEADS | {"ner": HEADS["ner"]})
    with serving_folders(artifacts, Settings(corrections=folder / "corrections")) as running:
        yield running


@pytest.fixture
def form(browser: Any, other_inputs: Running) -> Iterator[Page]:
    yield from opened(browser, other_inputs)


def test_all_tasks_answer_the_first_example_in_one_pass(page: Page) -> None:
    assert page.status().startswith("3 tasks, 1 pass, ")
    assert page.card("ner").locator("mark").count() > 0
    assert page.card("srl").locator(".roles button").all_inner_texts()[:2] == ["Ada", "Lovelace"]
    assert page.card("qa").locator(".options li").count() == 6
    page.screenshot("light")


def test_each_example_has_an_answer_of_each_task(page: Page) -> None:
    buttons = page.tab.locator("#examples button")
    assert buttons.count() == 5
    for button in buttons.all():
        button.click()
        page.wait()
        assert page.tab.input_value("#text")
        assert page.tab.locator(".card").count() == 3
        assert page.tab.locator(".card .error").count() == 0
        assert page.tab.locator(".roles .predicate").count() == 1


def test_a_click_on_a_word_asks_for_its_roles(page: Page) -> None:
    page.card("srl").get_by_role("button", name="born").click()
    page.wait()
    assert page.card("srl").locator(".predicate").all_inner_texts() == ["born"]
    assert page.card("srl").locator(".roles span", has_text="V").count() == 1


def test_tabs_by_keyboard_and_the_state_in_the_hash(page: Page) -> None:
    page.tab.focus("#tabs [aria-selected=true]")
    page.tab.keyboard.press("ArrowRight")
    page.wait()
    assert page.tab.locator(".card").count() == 1
    assert page.status().startswith("1 task, 1 pass, ")
    assert not page.tab.is_visible("#question")
    page.tab.fill("#text", "Bob lives in Paris. 😀 Zoe too.")
    page.tab.keyboard.press("Control+Enter")
    page.wait()
    address = page.tab.url.partition("/#")[2]
    page.open(f"#{address}")
    assert page.tab.input_value("#text") == "Bob lives in Paris. 😀 Zoe too."
    assert page.tab.locator("#tabs [aria-selected=true]").inner_text() == "ner"


def test_the_slider_fades_spans(page: Page) -> None:
    def faded() -> int:
        return int(page.card("ner").locator("mark.faded").count())

    page.tab.locator("#fade").fill("0")
    assert faded() == 0
    page.tab.locator("#fade").fill("1")
    assert faded() == page.card("ner").locator("mark").count() > 0


def test_the_prompt_can_be_removed_or_exchanged(page: Page) -> None:
    texts = set()
    for prompt in ("", "none", "srl"):
        page.tab.select_option("#prompt", prompt)
        page.wait()
        texts.add(page.card("ner").inner_html())
    assert len(texts) == 3


def test_corrections_are_saved(page: Page, corrections: Path) -> None:
    ner, qa = page.card("ner"), page.card("qa")
    ner.get_by_text("wrong?").click()
    for chip in ner.locator(".chips button").all()[::-1]:
        chip.click()
    _select(page, ".card[data-task=ner] .editor .text", 1, 6)  # "da Lo": whole words are taken
    ner.get_by_label("Label").select_option("Y")
    ner.get_by_text("Add the selection").click()
    assert not page.tab.is_visible("#ask"), "this selection is for the correction"
    page.screenshot("correction")
    ner.get_by_text("Send correction").click()
    ner.get_by_text("Thank you").wait_for()
    qa.get_by_text("wrong?").click()
    qa.get_by_role("button", name="No answer").click()
    qa.get_by_text("Send correction").click()
    qa.get_by_text("Thank you").wait_for()
    saved = [_last(corrections / task / "corrections.jsonl") for task in ("ner", "qa")]
    assert saved[0]["tokens"][:3] == ["Ada", "Lovelace", "was"]
    assert saved[0]["tags"][:3] == ["B-Y", "I-Y", "O"]
    assert saved[1]["answers"] == []


def test_labels_of_texts_are_shown_and_corrected(browser: Any, root: Path, tmp_path: Path) -> None:
    with serving(root, Settings(corrections=tmp_path), more=True) as running:
        page = Page(browser, running)
        topic = page.card("topic")
        assert sorted(topic.locator(".options li span:first-child").all_inner_texts()) == [
            "bad",
            "good",
        ]
        topic.get_by_text("wrong?").click()
        topic.get_by_label("Right answer").select_option("bad")
        topic.get_by_text("Send correction").click()
        topic.get_by_text("Thank you").wait_for()
        page.context.close()
        assert not page.problems
    saved = _last(tmp_path / "topic/corrections.jsonl")
    assert (saved["label"], saved["text"][:3]) == ("bad", "Ada")


def test_a_generated_text_appears_piece_by_piece(browser: Any, tmp_path: Path) -> None:
    settings = Settings(corrections=tmp_path / "corrections")
    with serving_folders(make_text_artifacts(tmp_path), settings) as running:
        page = Page(browser, running)
        page.tab.evaluate(
            """() => {
                window.texts = [];
                const record = () => texts.push(document.querySelector(".card pre")?.innerText);
                const options = { childList: true, subtree: true };
                new MutationObserver(record).observe(document.querySelector("#results"), options);
            }"""
        )
        page.tab.get_by_role("tab", name="story").click()
        page.wait()
        texts = page.tab.evaluate("texts")
        row = {"source": page.tab.input_value("#text")}
        expected = running.client.post("/v1/tasks/story", json=row).json()["result"]["text"]
        assert page.card("story").locator("pre").evaluate("it => it.textContent") == expected
        assert len(set(texts)) > 3, "the text grew"
        assert page.card("story").get_by_text("wrong?").count() == 0
        page.context.close()
        assert not page.problems


def _select(page: Page, selector: str, start: int, end: int) -> None:
    page.tab.evaluate(
        """([selector, start, end]) => getSelection().setBaseAndExtent(
            document.querySelector(selector).firstChild, start,
            document.querySelector(selector).firstChild, end)""",
        [selector, start, end],
    )


def _last(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8").splitlines()[-1])


def test_selected_text_becomes_a_question(page: Page) -> None:
    _select(page, ".card[data-task=srl] .roles button", 0, 3)
    page.tab.click("#ask")
    page.wait()
    assert page.tab.input_value("#question") == "What about Ada?"


def test_code_and_attention(page: Page) -> None:
    page.tab.click("#code summary")
    assert "/v1/predict" in page.tab.inner_text("#code pre")
    page.tab.click("[data-code=python]")
    assert "urllib.request" in page.tab.inner_text("#code pre")
    page.tab.click("#attention summary")
    page.tab.wait_for_selector("#attention svg rect")
    assert page.tab.locator("#attention rect").count() == 2


def test_text_is_never_html(page: Page) -> None:
    page.tab.fill("#text", "<img src=x onerror=alert(1)> met <b>Bo</b> & co.")
    page.tab.fill("#question", "<script>alert(1)</script>?")
    page.tab.click("text=Predict")
    page.wait()
    assert page.tab.locator("#results img, #results b, #results script").count() == 0
    assert "onerror" in page.card("ner").inner_text()


def test_what_the_model_did_not_read_is_said(page: Page) -> None:
    page.tab.fill("#question", "Ada " * 50)
    page.tab.click("text=Predict")
    page.wait()
    assert "did not read all of it: questions cut: 1." in page.card("qa").inner_text()
    assert "did not read" not in page.card("ner").inner_text()
    page.screenshot("cut")


def test_errors_are_shown(page: Page) -> None:
    page.tab.fill("#text", "a " * 400)
    page.tab.click("text=Predict")
    page.tab.wait_for_selector("#status.error")
    assert "more than 500 characters" in page.status()
    page.problems.clear()  # the console names the refused request


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
def test_it_fits_the_screen_and_is_legible(
    browser: Any, server: Running, scheme: str, width: int
) -> None:
    page = Page(browser, server, color_scheme=scheme, viewport={"width": width, "height": 800})
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
    colors = page.tab.evaluate(
        "['color', 'backgroundColor'].map((name) => getComputedStyle(document.body)[name])"
    )
    light, dark = sorted((_luminance(color) for color in colors), reverse=True)
    assert (light + 0.05) / (dark + 0.05) > 7, "contrast of WCAG AAA"
    assert (_luminance(colors[0]) > _luminance(colors[1])) == (scheme == "dark")
    page.screenshot(f"{scheme}-{width}")
    page.context.close()
    assert not page.problems


def _luminance(color: str) -> float:
    """The relative luminance of "rgb(r, g, b)" by WCAG 2."""
    values = [int(part) / 255 for part in color.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_api_page_lists_requests(page: Page) -> None:
    page.tab.goto(f"{page.server.url}/docs")
    page.tab.wait_for_selector("text=POST /v1/predict")
    assert page.tab.locator("summary", has_text="TokenClassificationRow").count() == 1
    page.screenshot("docs")


def test_tasks_have_fields_for_their_own_inputs(form: Page) -> None:
    visible = form.tab.locator("fieldset:visible legend")
    assert visible.all_inner_texts() == [
        "Input of woz, woz_text",
        "Input of born",
        "Input of copa",
        "Input of pairs",
    ]
    assert form.tab.locator(".card").count() == len(FORM_HEADS) + 1
    assert form.tab.locator(".card .error").count() == 0
    form.choose("woz")
    assert visible.all_inner_texts() == ["Input of woz, woz_text"]
    assert not form.tab.is_visible("#text")
    form.choose("ner")
    assert visible.count() == 0
    assert form.tab.is_visible("#text")


def test_the_turns_of_a_dialogue_are_added_removed_and_sent(form: Page) -> None:
    fields = form.choose("woz")
    fields.get_by_label("user 1", exact=True).fill("<b>Thai</b> food")
    fields.get_by_role("button", name="Add a turn").press("Enter")
    assert fields.get_by_label("system 3").evaluate("it => it === document.activeElement")
    form.tab.keyboard.type("Which area?")
    form.tab.keyboard.press("Tab")
    form.tab.keyboard.type("South.")
    fields.get_by_role("button", name="Remove turn 2").click()
    expected = {
        "task": "woz",
        "system": ["", "Which area?"],
        "user": ["<b>Thai</b> food", "South."],
    }
    assert form.predict() == expected
    card = form.card("woz").inner_text()
    assert "<b>Thai</b> food" in card
    assert "Which area? · South." in card
    form.open("#" + form.tab.url.partition("#")[2])
    assert form.predict() == expected, "the dialogue is in the address"
    assert form.tab.locator("fieldset b, .card b").count() == 0


def test_what_is_wrong_with_a_dialogue_is_said_at_its_fields(form: Page) -> None:
    fields = form.choose("woz")
    error = fields.locator(".error")
    fields.get_by_label("user 2").fill(" ")
    form.predict()
    assert error.inner_text() == "turn 1: user is empty: ' '; fill it in, or remove the row"
    for _ in range(2):
        fields.get_by_role("button", name="Remove").first.click()
    form.predict()
    assert "a dialogue has at least one turn" in error.inner_text()
    fields.get_by_role("button", name="Add a turn").click()
    fields.get_by_label("user 1", exact=True).fill("Thai food.")
    form.predict()
    assert error.inner_text() == ""


def test_a_dialogue_is_shared_by_tasks_and_written_about(form: Page) -> None:
    user = form.choose("woz").get_by_label("user 1", exact=True)
    user.fill("Any food.")
    form.choose("woz_text")
    assert user.is_visible()
    assert user.input_value() == "Any food."
    with form.tab.expect_request("**/v1/tasks/woz_text") as sent:
        form.tab.click("button.primary")
    form.wait()
    assert sent.value.post_data_json["user"][0] == "Any food."
    assert form.card("woz_text").locator("pre").count() == 1
    user.fill("")
    form.tab.click("button.primary")
    form.wait()
    error = form.fields("woz").locator(".error").inner_text()
    assert error == "turn 0: user is empty: ''; fill it in, or remove the row"
    assert form.card("woz_text").locator("pre").count() == 0, (
        "no answer to another dialogue is left"
    )
    form.problems.clear()  # the console names the refused request


def test_facts_have_a_subject_a_relation_and_maybe_a_template(form: Page) -> None:
    fields = form.choose("born")
    fields.get_by_label("subject").fill("<img src=x onerror=alert(1)>")
    assert form.predict() == {
        "task": "born",
        "subject": "<img src=x onerror=alert(1)>",
        "relation": "P19",
    }
    fields.get_by_label("template").fill("[X], who lived in [Y] .")
    assert form.predict()["template"] == "[X], who lived in [Y] ."
    assert "London" in form.card("born").inner_text()
    assert fields.get_by_label("relation").locator("option").all_inner_texts() == ["P19", "P20"]
    fields.get_by_label("relation").select_option("P20")
    assert form.predict()["relation"] == "P20"
    assert "Paris" in form.card("born").inner_text()
    assert form.tab.locator("form img").count() == 0


def test_choices_and_the_second_text_of_a_pair(form: Page) -> None:
    fields = form.choose("copa")
    fields.get_by_role("button", name="Add to choices").click()
    form.tab.keyboard.type("Rome")
    row = form.predict()
    assert row["choices"] == ["London", "Ada Lovelace", "Rome"]
    assert row["context"] == form.tab.input_value("#text")
    assert form.card("copa").locator(".options li").count() == 3
    fields = form.choose("pairs")
    assert "text_pair" not in form.predict()
    fields.get_by_label("text pair").fill("She was.")
    assert form.predict()["text_pair"] == "She was."


def test_an_empty_text_stops_only_the_tasks_that_read_it(form: Page) -> None:
    form.tab.fill("#text", "")
    form.tab.click("button.primary")
    form.wait()
    assert form.status().startswith("3 tasks, ")
    assert form.card("ner").inner_text().endswith("Write a text, or click an example.")
    assert "London" in form.card("born").inner_text()
    form.tab.get_by_role("tab", name="ner", exact=True).click()
    form.wait()
    assert form.status() == "Write a text, or click an example."
    form.tab.fill("#text", "Ada was here.")
    form.tab.locator("#fade").fill("0.5")
    assert form.card("ner").inner_text().endswith("Write a text, or click an example.")


def test_a_relation_in_the_address_that_is_not_served_is_ignored(form: Page) -> None:
    form.open("#task=born&born.relation=P99&born.subject=Ada")
    assert form.fields("born").get_by_label("relation").input_value() == "P19"
    assert form.predict()["subject"] == "Ada"


def test_only_results_that_the_editor_knows_can_be_corrected(form: Page) -> None:
    corrected = [
        task for task in [*FORM_HEADS, "ner"] if form.card(task).get_by_text("wrong?").count()
    ]
    assert corrected == ["copa", "pairs", "ner"]


@pytest.mark.parametrize("width", [1100, 360])
def test_the_fields_fit_the_screen(browser: Any, other_inputs: Running, width: int) -> None:
    page = Page(browser, other_inputs, viewport={"width": width, "height": 800})
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= width
    labels = page.tab.locator("fieldset label")
    assert labels.count() == 4 + 3 + 2 + 1
    assert all(label.locator("input, textarea, select").count() == 1 for label in labels.all())
    page.screenshot(f"fields-{width}")
    page.context.close()
    assert not page.problems
