/* The page Vote while no study is open: pairs of the pool without end, one press each, the names after it. The pair after
   the one on the screen is always fetched and decoded ahead. It talks to /arena and /vote; vote.js starts it. */
window.npoArena = (root) => {
  const { base, button, callUntilAnswered, element, link, listen, loadPair, mount, notice, panel, play, say, screen, sleep, stage, togglePlay } = window.npoStage;
  const KEYS = { a: "left", ArrowLeft: "left", b: "right", ArrowRight: "right", ArrowDown: "tie" };
  const ANSWERS = { left: ["A", "←"], tie: ["No difference", "↓"], right: ["B", "→"] };
  const GUARD_MS = 200; // a second press in a hurry answers nothing
  const NAMES_MS = 2600; // then the next pair comes by itself
  const POLL_MS = 3000;

  let who = "", current, changedAt = 0;
  const counter = element("p", { id: "npo-arena-count", role: "status" });

  /* Whom the server takes this browser for: the same person as on Compare, whom it showed names to. */
  async function introduced() {
    for (let waited_ms = 0; waited_ms < 10000; waited_ms += 50) {
      const told = document.getElementById("npo-visitor");
      if (told) return told.dataset.id;
      await sleep(50);
    }
    return "";
  }

  async function fetchPair(held) {
    const told = await callUntilAnswered("arena", who, held);
    who = told.participant_id;
    count(told);
    if (told.ballot_id === null) return told;
    const pair = await loadPair(told, ["A:", "B:"], () => {});
    if (pair.failed) throw new Error("A pair could not be loaded.");
    return pair;
  }

  function count({ picks, missing, agreement }) {
    const words = [`${picks} pick${picks === 1 ? "" : "s"} by you`];
    words.push(missing ? `${missing} more by anybody until the negative model is retrained` : "enough by all to retrain the negative model");
    if (agreement?.shared) words.push(`you agree with everybody on ${Math.round((100 * agreement.agreeing) / agreement.shared)}% of ${agreement.shared}`);
    counter.textContent = words.join(" · ");
  }

  function show(pair) {
    current = pair;
    const side = (name) => element("figure", { class: "npo-arena-side", "data-side": name },
      panel(pair[`${name}Media`], `${ANSWERS[name][0]} is better; hold to enlarge both`, () => press(name)),
      element("figcaption", {}, ANSWERS[name][0]));
    const answers = Object.entries(ANSWERS).map(([choice, [label, key]]) => {
      const made = button(label, () => press(choice), { "data-choice": choice, class: `npo-vote-button npo-vote-${choice}` });
      made.append(element("kbd", { "aria-hidden": "true" }, key));
      return made;
    });
    const focused = root.contains(document.activeElement); // it would fall out of the page with what it was on
    stage(
      element("h1", { class: "npo-vote-prompt", tabindex: "-1" }, pair.prompt),
      element("div", { class: "npo-vote-pair npo-arena-pair" }, side("left"), side("right")),
      element("div", { class: "npo-vote-answers", role: "group", "aria-label": "Which one is better?" }, ...answers),
      element("p", { class: "npo-arena-consent" }, "Press the better one. Votes are kept without your name, and the next model learns from them."),
    );
    if (focused) root.querySelector("h1").focus({ preventScroll: true });
    say(`Which one is better? ${pair.prompt}`);
    listen(key);
    play(pair);
    requestAnimationFrame(() => requestAnimationFrame((time) => {
      pair.shownAt = changedAt = time;
      root.dataset.shown = pair.ballot_id;
    }));
    fetchAhead(pair);
  }

  function fetchAhead(pair) {
    pair.next ||= fetchPair(pair.ballot_id);
    pair.next.catch(() => {}); // told when it is needed
  }

  function key(event) {
    const choice = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const free = event.target.tagName !== "BUTTON" && event.target.tagName !== "A"; // which these keys press themselves
    if (choice) {
      event.preventDefault();
      press(choice);
    } else if ((event.key === " " || event.key === "Enter") && free) {
      event.preventDefault();
      if (current.named) advance();
      else if (event.key === " ") togglePlay(current);
    }
  }

  /* An answer, or, where the names stand there already, on to the next. */
  function press(choice) {
    if (!current?.shownAt || performance.now() - changedAt < GUARD_MS) return;
    if (current.named) advance();
    else if (!current.choice) answer(current, choice);
  }

  async function answer(pair, choice) {
    pair.choice = choice;
    root.querySelector(`[data-side=${choice}]`)?.classList.add("chosen");
    const seconds = (performance.now() - pair.shownAt) / 1000;
    try {
      names(pair, await callUntilAnswered("vote", pair.ballot_id, choice, who, "", seconds));
    } catch (error) { // the names of these two were told elsewhere, or it is too old
      pair.next = undefined;
      fetchAhead(pair);
      await advance(pair);
      notice(error.message);
    }
  }

  async function names(pair, told) {
    pair.named = true;
    changedAt = performance.now();
    const labels = ["left", "right"].map((side) => pair.labels[told[`${side}_variant`]] || told[`${side}_variant`]);
    root.querySelectorAll(".npo-arena-side figcaption").forEach((caption, place) => {
      const letter = caption.textContent;
      caption.replaceChildren(`${letter}: `, element("strong", {}, labels[place]));
    });
    const next = button("Next", () => press("next"), { class: "npo-vote-button npo-primary npo-arena-next" });
    const answers = root.querySelector(".npo-vote-answers");
    const hadFocus = answers.contains(document.activeElement);
    answers.replaceChildren(next);
    if (hadFocus) next.focus({ preventScroll: true });
    say(`A is ${labels[0]}, B is ${labels[1]}.`);
    root.dataset.named = pair.ballot_id;
    if (!window.matchMedia("(prefers-reduced-motion: reduce)").matches) {
      setTimeout(() => current === pair && !root.querySelector(".zoomed") && advance(), NAMES_MS);
    }
    const after = await pair.next.catch(() => null);
    if (after?.ballot_id) fetchAhead(after); // now, for it tells the new count too
    else pair.next = fetchPair(""); // there was none but the one that was just answered
    pair.next.catch(() => {});
  }

  async function advance(pair = current) {
    if (current !== pair) return;
    current = undefined;
    const late = setTimeout(() => screen("One moment…", []), 100);
    try {
      const next = await pair.next;
      clearTimeout(late);
      if (next.ballot_id === null) await wait(next.picks);
      else show(next);
    } catch (error) {
      clearTimeout(late);
      fault(error);
    }
  }

  function fault(error) {
    screen("That did not work", [error.message], button("Try again", begin));
  }

  /* Until there is a pair again, which the lab makes when nobody else generates. */
  async function wait(picks) {
    const words = picks
      ? ["You have judged every pair there is", "New ones are made whenever the lab has nothing else to do; the next comes by itself."]
      : ["The first pairs are being made", "They come by themselves in a moment."];
    screen(words[0], [words[1]], link("Compare pictures of your own", base(), "npo-primary"), link("See what people preferred", base() + "results"));
    for (;;) {
      await sleep(POLL_MS);
      const next = await fetchPair("");
      if (next.ballot_id !== null) return show(next);
    }
  }

  async function begin() {
    screen("One moment…", []);
    try {
      who ||= await introduced();
      const first = await fetchPair("");
      if (first.ballot_id === null) await wait(first.picks);
      else show(first);
    } catch (error) {
      fault(error);
    }
  }

  mount(root, counter, element("nav", { class: "npo-arena-links", "aria-label": "Pages" },
    link("Make your own", base(), "npo-quiet"), link("Results", base() + "results", "npo-quiet")));
  begin();
};
