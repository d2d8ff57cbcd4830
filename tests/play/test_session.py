"""Games in the dream of a shipped agent, beside its environment: by steps, by a server, by a terminal."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from dreamer_agent.cli import app
from dreamer_agent.envs import make_env
from dreamer_agent.errors import ConfigError
from dreamer_agent.play import Recorder, Server, Session, open_session, play_browser, play_steps
from dreamer_agent.play.recording import HIGH, drawn
from dreamer_agent.play.terminal import _Game, blocks

RUN = "pretrained:catch"
LEFT, STAY, RIGHT = 0, 1, 2


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    session = open_session(RUN)
    yield session
    session.close()


def game(session: Session, seed: int, actions: list[int]) -> list[Any]:
    """The moments of a person's game."""
    return [session.reset(seed), *(session.step("human", [action]) for action in actions)]


def test_both_worlds_begin_alike_and_get_the_same_actions(session: Session) -> None:
    moments = game(session, 3, [LEFT, LEFT, STAY, RIGHT])
    env = make_env(session_config(), 1)
    rows = env.reset(3)[-1]
    for moment, action in zip(moments, [None, LEFT, LEFT, STAY, RIGHT], strict=True):
        if action is not None:
            rows = env.step({"action": np.array([action])})[0]
        np.testing.assert_array_equal(moment.real.frame, rows.obs["image"][0])
        assert moment.real.reward == rows.reward[0] and moment.action == (None if action is None else [action])
    dreamed, real = moments[0].dream.frame[::20, ::20], moments[0].real.frame
    assert np.abs(dreamed.astype(int) - real).mean() < 10  # the model has seen the first observation
    assert [moment.steps for moment in moments] == [0, 1, 2, 3, 4]
    assert moments[-1].dream.total == pytest.approx(sum(moment.dream.reward for moment in moments))


def session_config() -> Any:
    from dreamer_agent import run_config

    return run_config(RUN).env


def test_a_seed_and_its_actions_repeat_a_game(session: Session) -> None:
    one, other = game(session, 5, [LEFT, RIGHT]), game(session, 5, [LEFT, RIGHT])
    third = game(session, 5, [LEFT, STAY])
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.dream.frame, b.dream.frame)
        assert a.thoughts == b.thoughts
    assert one[1].thoughts == third[1].thoughts and one[2].thoughts != third[2].thoughts
    assert session.reset().steps == 0 and session.seed == 6


def test_a_step_is_that_of_the_dream(session: Session) -> None:
    session.reset(7)
    before, dream = session.latent, session.dream
    moment = session.step("human", [RIGHT])
    _, _, move, _ = jax.random.split(jax.random.split(jax.random.PRNGKey(7))[0], 4)
    after = dream.follow(session.params, move, before, {"action": np.int32(RIGHT)})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), session.latent, after)
    features = after.features[None]
    model = dream.agent.model
    reward = model.predict_reward(session.params, features).mean()[0]
    np.testing.assert_allclose(moment.dream.reward, reward, atol=1e-4)
    value = dream.agent.nets.value(session.params["critic"], features).mean()[0]
    np.testing.assert_allclose(moment.thoughts.value, value, rtol=1e-4)
    logits = model.rssm.prior.apply(session.params["rssm"]["prior"], after.deter[None])
    np.testing.assert_allclose(moment.thoughts.entropy, model.rssm.distribution(logits).entropy()[0], rtol=1e-4)
    assert 0 <= moment.thoughts.goes_on <= 1 and moment.thoughts.doubt is None


def test_a_look_at_reality_is_an_observation(session: Session) -> None:
    game(session, 9, [LEFT] * 4)
    key, latent, thoughts = session.key, session.latent, session.moment.thoughts
    moment = session.peek()
    own = jax.random.split(key)[1]
    obs = {name: value[0] for name, value in session.rows.obs.items()}  # type: ignore[union-attr]
    expected = session.dream.perceive(session.params, own, latent, {"action": np.int32(LEFT)}, obs, False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), session.latent, expected)
    assert moment.steps == 4 and moment.thoughts != thoughts
    assert np.abs(moment.dream.frame[::20, ::20].astype(int) - moment.real.frame).mean() < 10


def test_policy_and_planner_play_by_what_is_dreamed(session: Session) -> None:
    session.reset(11)
    session.step("policy")
    assert session.moment.who == "policy" and session.moment.action[0] in (LEFT, STAY, RIGHT)
    session.step("shooting:samples=8,horizon=2")
    assert session.moment.steps == 2
    with pytest.raises(ConfigError, match="Unknown planner 'nobody'"):
        session.step("nobody")
    with pytest.raises(ConfigError, match="give a whole number below 3"):
        session.step("human", [5])
    assert session.moment.steps == 2  # nothing was lost


def test_a_game_ends_with_the_dream(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.reset(13)
    ended = session.moment._replace(dream=session.moment.dream._replace(ended=True))
    monkeypatch.setattr(session, "moment", ended)
    assert session.over and session.step("policy") is ended and session.peek() is ended


def test_what_was_played_is_a_video(session: Session, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "played.gif", 10)
    with pytest.raises(ConfigError, match="Nothing was played yet"):
        recorder.write()
    session.reset(15)
    play_steps(session, recorder, 3)
    recorder.add(session.moment)  # once more: it is kept once
    assert len(recorder.moments) == 4
    written = recorder.write()
    with Image.open(written[0]) as gif:
        assert gif.n_frames == 4 and gif.height > HIGH
    alone = drawn(session.moment._replace(real=None))
    assert drawn(session.moment).shape[1] == 2 * alone.shape[1]


@pytest.fixture
def server(session: Session, tmp_path: Path) -> Iterator[Server]:
    session.reset(17)
    server = play_browser(session, Recorder(tmp_path / "page.gif"), opened=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(server: Server, what: str, content: Any = None, **headers: str) -> tuple[int, Any]:
    data = None if content is None else content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = ({"Content-Type": "application/json"} if data is not None else {}) | headers
    request = urllib.request.Request(server.url + what, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
            return answer.status, json.loads(body) if "json" in answer.headers["Content-Type"] else body.decode()
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]


def test_the_page_is_served_and_plays(server: Server) -> None:
    status, page = ask(server, "")
    assert status == 200 and "Dreamed by the model" in page
    _, spec = ask(server, "spec")
    assert spec["players"] == ["policy", "mppi", "cem", "shooting"] and spec["real"]
    assert spec["bindings"]["ArrowRight"] == [0, RIGHT] and spec["controls"][0]["classes"] == 3
    _, now = ask(server, "step", {"who": "human", "values": [RIGHT]})
    assert now["steps"] == 1 and now["action"] == [RIGHT] and now["dream"]["total"] == now["dream"]["reward"]
    frame = Image.open(io.BytesIO(urllib.request.urlopen(now["dream"]["frame"]).read()))
    np.testing.assert_array_equal(np.asarray(frame), server.session.moment.dream.frame)
    assert ask(server, "now")[1] == now
    assert ask(server, "reset", {"seed": 4})[1]["seed"] == 4
    assert ask(server, "record", {})[1]["written"][0].endswith("page.gif")


def test_requests_of_others_and_nonsense_are_refused(server: Server) -> None:
    before = ask(server, "now")[1]
    assert ask(server, "now", Host="evil.example") == (403, "Only this machine's own address is served.")
    assert ask(server, "step", {"who": "human"}, **{"Content-Type": "text/plain"})[0] == 415
    assert ask(server, "step", b"[1]")[0] == 400 and ask(server, "step", b"{")[0] == 400
    assert ask(server, "step", {"who": "human", "values": [9]})[1].startswith(
        "The action 'action' [0] was given 9"
    )
    assert ask(server, "step", {"who": "human", "values": 3})[0] == 400
    assert ask(server, "reset", {"seed": "x"})[0] == 400
    assert "cannot be asked for" in ask(server, "files")[1]
    assert ask(server, "step", b"x" * 200_000)[0] in (400, 413)
    assert ask(server, "now")[1] == before
    with pytest.raises(ConfigError, match=f"Port {server.server_port} of this machine cannot be used"):
        Server(server.session, server.recorder, [], port=server.server_port)


def test_a_person_plays_in_a_real_browser(server: Server, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next(
        (path for path in ("/usr/bin/chromium", "/usr/bin/google-chrome") if os.path.exists(path)), None
    )
    if chromium is None:
        pytest.skip("there is no browser here")
    quiet = [
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-quic",
    ]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=quiet)
        page, complaints = browser.new_page(), []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(server.url)
        page.wait_for_selector("#charts canvas")

        def at(step: int) -> None:
            page.wait_for_function(f"document.querySelector('#steps').textContent.startsWith('step {step},')")

        page.keyboard.press("ArrowRight")
        at(1)
        assert server.session.moment.action == [RIGHT] and server.session.moment.who == "human"
        page.keyboard.press("p")
        page.keyboard.press("s")
        at(2)
        assert server.session.moment.who == "policy"
        page.click("#peek")
        page.keyboard.press(" ")
        page.wait_for_function("parseInt(document.querySelector('#steps').textContent.slice(5)) > 4")
        page.keyboard.press(" ")
        assert page.eval_on_selector("#dream img", "image => image.naturalWidth") == 320
        page.click("#record")
        page.wait_for_function("document.querySelector('#message').textContent.startsWith('Saved')")
        page.keyboard.press("r")
        at(0)
        browser.close()
    assert complaints == [] and list(tmp_path.glob("page.*"))


def test_keys_of_a_terminal_play(session: Session, tmp_path: Path) -> None:
    session.reset(19)
    game = _Game(session, Recorder(tmp_path / "x.gif"))
    console = Console(width=80, height=30, force_terminal=True, color_system="truecolor", file=io.StringIO())
    for key in ("ArrowLeft", "n", "p", "n", "l", "?"):
        game.hear(key)
    assert session.moment.steps == 3 and session.moment.who == "policy"
    console.print(game.shown(console))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "step 3" in text and "player policy" in text and "▀" in text and "dreamed" in text and "real" in text
    game.hear("r")
    assert session.moment.steps == 0
    game.hear("q")
    assert game.done


def test_half_blocks_are_two_pixels() -> None:
    frame = np.zeros((4, 2, 3), np.uint8)
    frame[1] = (255, 0, 0)
    text = blocks(frame, 2, 2)
    assert text.plain.splitlines() == ["▀▀", "▀▀"]
    assert text.spans[0].style.bgcolor.triplet == (255, 0, 0) and text.spans[0].style.color.triplet == (0, 0, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudoterminal")
def test_the_command_plays_in_a_terminal(tmp_path: Path) -> None:
    import pty

    parent, child = pty.openpty()
    command = [sys.executable, "-m", "dreamer_agent", "play", RUN, "--terminal", "--no-real"]
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=subprocess.STDOUT, cwd=tmp_path)
    os.close(child)
    heard = b""
    try:
        for wanted, key in ((b"step 0", b"\x1b[C"), (b"step 1", b"n"), (b"step 2", b"q")):
            while wanted not in heard:
                heard += os.read(parent, 65536)
            os.write(parent, key)
        while process.poll() is None:
            try:
                os.read(parent, 65536)
            except OSError:  # the terminal is closed with its last program
                break
        assert process.wait(60) == 0
    finally:
        process.kill()
        os.close(parent)


def test_the_command_writes_what_the_policy_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, ["play", RUN, "--steps", "4", "--record", "game.gif"])
    assert said.exit_code == 0, said.output
    assert "4 steps, predicted return" in said.output and "real return" in said.output
    assert (tmp_path / "game.gif").is_file()
    no_terminal = CliRunner().invoke(app, ["play", RUN, "--terminal", "--no-real"])
    assert "There is no terminal to play in" in str(no_terminal.exception)
