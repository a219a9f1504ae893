/* The page Vote while a study is open (else arena.js): takes a person through it, from consent to the way out. It draws
   into #npo-study and talks to /study, /join_study, /next_ballot, /vote, /undo_vote, /leave_study and /report_fault. An
   answer is kept in the browser until the server has it; the pair after the one on the screen is always fetched and
   decoded ahead. */
(() => {
  const { base, button, call, callUntilAnswered, element, link, listen, loadPair, mount: mountStage, notice, panel, play, say, sleep, stage, store, togglePlay } = window.npoStage;
  const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", ArrowUp: "both_bad", s: "skip", S: "skip" };
  const LABELS = {
    left: ["Left", "←"], right: ["Right", "→"], tie: ["No difference", "↓"], both_bad: ["Both bad", "↑"], skip: ["Skip", "S"],
  };
  const HISTORY = 10;

  let root, study, token, code, current, shownAt, unlocked = false;
  let history = [];
  let lap = 0; // goes up when what was under way is not to be shown any more
  let sending = Promise.resolve();

  /* A platform's workers may share a browser: what is kept of one is kept apart from what is kept of another. */
  const worker = () => {
    const query = new URLSearchParams(location.search);
    const id = query.get("PROLIFIC_PID") || query.get("workerId");
    return id ? ":" + id : "";
  };
  async function fetchPair(held) {
    const told = await callUntilAnswered("next_ballot", token, study.name, held || "");
    if (told.ballot_id === null) return told;
    return loadPair(told, ["Left", "Right"], (error) => {
      call("report_fault", study.name, token, error.message, told.ballot_id).catch(() => {});
    });
  }

  function screen(...what) {
    current = undefined;
    window.npoStage.screen(...what);
  }

  function progress(number, of) {
    const bar = root.querySelector("#npo-vote-progress");
    bar.hidden = !of;
    bar.setAttribute("aria-valuenow", number);
    bar.setAttribute("aria-valuemax", of || 1);
    bar.firstElementChild.style.width = `${(100 * number) / (of || 1)}%`;
  }

  // A ballot

  function show(pair) {
    current = pair;
    unlocked = false;
    const total = pair.training ? "Practice" : `${pair.number} of ${pair.of}`;
    progress(pair.training ? 0 : pair.number - 1, pair.of);
    const choices = ["left", "tie", "both_bad", "right", "skip"].filter((choice) => study.choices.includes(choice));
    const answers = choices.map((choice) => button(LABELS[choice][0], () => answer(choice), {
      class: `npo-vote-button npo-vote-${choice}`, "data-choice": choice, "aria-disabled": "true",
      "aria-keyshortcuts": { "←": "ArrowLeft", "→": "ArrowRight", "↓": "ArrowDown", "↑": "ArrowUp" }[LABELS[choice][1]] || LABELS[choice][1],
    }));
    answers.forEach((each) => each.append(element("kbd", { "aria-hidden": "true" }, LABELS[each.dataset.choice][1])));
    const undo = button("Undo", goBack, { class: "npo-vote-button npo-vote-undo", "aria-keyshortcuts": "Z", "aria-disabled": String(!history.length) });
    undo.append(element("kbd", { "aria-hidden": "true" }, "Z"));
    const hadFocus = document.activeElement?.dataset?.choice;
    stage(
      element("p", { class: "npo-vote-count" }, total),
      element("h1", { class: "npo-vote-prompt" }, pair.prompt),
      pair.failed
        ? element("p", { class: "npo-message npo-error", role: "alert" }, "These could not be loaded. It is our fault and was noted; please skip this pair.")
        : element("div", { class: "npo-vote-pair" }, ...["left", "right"].map((side) => panel(pair[`${side}Media`], `${LABELS[side][0]}: enlarge both at the same place`))),
      element("div", { class: "npo-vote-answers", role: "group", "aria-label": "Which one is better?" }, ...answers, undo),
    );
    if (hadFocus) root.querySelector(`[data-choice=${hadFocus}]`)?.focus({ preventScroll: true });
    say(`${pair.training ? "Practice pair" : `Pair ${total}`}: ${pair.prompt}`);
    listen(ballotKey);
    if (!pair.failed) play(pair);
    requestAnimationFrame(() => requestAnimationFrame((time) => {
      shownAt = time;
      root.dataset.shown = pair.ballot_id;
      setTimeout(() => current === pair && unlock(pair), 1000 * study.min_view_s);
    }));
    if (!pair.next) {
      pair.next = sending.then(() => fetchPair(pair.ballot_id));
      pair.next.catch(() => {}); // told when it is needed
    }
  }

  function unlock(pair) {
    unlocked = true;
    root.querySelectorAll("[data-choice]").forEach((each) => {
      each.setAttribute("aria-disabled", String(Boolean(pair.failed) && each.dataset.choice !== "skip"));
    });
  }

  function ballotKey(event) {
    const choice = KEYS[event.key];
    if (choice && study.choices.includes(choice)) {
      event.preventDefault();
      answer(choice);
    } else if (event.key === "z" || event.key === "Z") {
      event.preventDefault();
      goBack();
    } else if (event.key === "Escape") {
      root.querySelectorAll(".npo-vote-panel.zoomed").forEach((each) => {
        each.classList.remove("zoomed");
        each.setAttribute("aria-pressed", "false");
      });
    } else if (event.key === " " && event.target.tagName !== "BUTTON") {
      event.preventDefault();
      if (current) togglePlay(current);
    }
  }

  function answer(choice) {
    const pair = current;
    if (!pair || !unlocked || (pair.failed && choice !== "skip")) return;
    unlocked = false;
    const seconds = (performance.now() - shownAt) / 1000;
    const sent = send("vote", pair.ballot_id, choice, token, "", pair.failed || pair.answered ? null : seconds);
    pair.answered = true;
    if (pair.training) {
      sent.then((told) => told && feedback(pair, choice, told.right));
      return;
    }
    history = [...history, pair].slice(-HISTORY);
    current = undefined; // nothing can be answered or undone until the next is on the screen
    advance(pair);
  }

  /* An answer, or that one is taken back: kept in the browser until the server has it, or says why it will not. */
  function send(...entry) {
    store("unsent", JSON.stringify([...unsent(), entry]));
    const sent = sending.then(() => callUntilAnswered(...entry));
    sending = sent.catch(refused).then(() => forget(entry));
    return sent.catch(() => null);
  }

  function forget(entry) {
    store("unsent", JSON.stringify(unsent().filter((each) => JSON.stringify(each) !== JSON.stringify(entry))));
  }

  /* An answer that the server does not take is told, and its pair asked about again. */
  function refused(error) {
    lap += 1;
    history = [];
    screen("That answer was not taken", [error.message],
      button("Show the pair again", () => again(), { class: "npo-vote-button npo-primary" }));
  }

  async function again() {
    try {
      await begin(await fetchPair(""));
    } catch (error) {
      screen("That did not work", [error.message], button("Try again", start));
    }
  }

  function unsent() {
    try { return JSON.parse(store("unsent") || "[]"); } catch { return []; }
  }

  async function advance(pair) {
    const mine = lap;
    try {
      let ready = await Promise.race([pair.next, sleep(30).then(() => null)]);
      if (!ready && lap === mine) {
        screen("One moment…", []);
        ready = await pair.next;
      }
      if (lap === mine) await begin(ready);
    } catch (error) {
      screen("That did not work", [error.message], button("Try again", start));
    }
  }

  /* What was fetched: a pair, a rest before it, or the end. */
  async function begin(next) {
    if (next.ballot_id === null) await finish(next);
    else if (next.rest && !next.rested) {
      next.rested = true;
      progress(next.number - 1, next.of);
      screen(`${next.number - 1} of ${next.of} done`, ["Rest your eyes for a moment. Go on whenever you like."],
        button("Go on", () => show(next), { class: "npo-vote-button npo-primary" }));
    } else show(next);
  }

  function feedback(pair, choice, right) {
    const words = right
      ? ["That was right", "The other one was spoiled on purpose. Some pairs later on are like this one."]
      : ["Look closely", "One of the two was spoiled on purpose; the other one is better. Some pairs later on are like this one."];
    screen(words[0], [words[1]], button("Next", () => advance(pair), { class: "npo-vote-button npo-primary" }));
  }

  function goBack() {
    if (!history.length || !current) return;
    const previous = history.pop();
    send("undo_vote", previous.ballot_id, token);
    show(previous); // the one that was on the screen comes again, as what follows it
    notice("Your answer was undone; answer again.");
  }

  // The way in and the way out

  async function finish(told) {
    const mine = lap;
    await sending;
    if (lap !== mine) return;
    if (!told.finished) told = await callUntilAnswered("next_ballot", token, study.name, "");
    if (told.ballot_id !== null && told.ballot_id !== undefined) {
      return begin(await fetchPair(""));
    }
    progress(1, 1);
    const lines = ["Thank you. Every answer is saved."];
    if (told.completion_code) lines.push(inCode("Completion code: ", told.completion_code));
    lines.push(inCode("Your own code, to have your answers erased later: ", told.code));
    const buttons = [];
    if (told.completion_url) {
      lines.push("You will be taken back in a few seconds.");
      buttons.push(element("a", { class: "npo-vote-button npo-primary", href: told.completion_url }, "Go back now"));
      setTimeout(() => location.assign(told.completion_url), 8000);
    }
    screen("That was all", lines, ...buttons, button("Withdraw my answers", () => withdraw(), { class: "npo-vote-button npo-quiet" }));
  }

  const inCode = (label, text) => element("p", {}, label, element("code", { class: "npo-vote-code" }, text));

  function leave() {
    lap += 1;
    screen("Leave the study?", ["What you have answered is saved and counts. You can go on later, in this browser."],
      button("Go on", start, { class: "npo-vote-button npo-primary" }),
      button("Stop here", () => screen("Thank you", ["Your answers are saved. Open this page again to go on.",
        inCode("Your own code, to have your answers erased later: ", code)], button("Go on", start))),
      button("Withdraw my answers", () => withdraw(), { class: "npo-vote-button npo-quiet" }));
  }

  function withdraw() {
    screen("Withdraw your answers?", ["They will count nowhere. This cannot be undone."],
      button("Keep them", start, { class: "npo-vote-button npo-primary" }),
      button("Withdraw", async () => {
        try {
          await call("leave_study", study.name, token);
          withdrawn();
        } catch (error) { screen("That did not work", [error.message], button("Back", start)); }
      }, { class: "npo-vote-button npo-quiet" }));
  }

  function withdrawn() {
    root.querySelector("#npo-vote-leave").hidden = true;
    screen("You have withdrawn", ["Your answers count nowhere. Thank you for coming.",
      inCode("To have them erased altogether, send this code to the people who asked you: ", code)]);
  }

  async function join() {
    const query = Object.fromEntries(new URLSearchParams(location.search));
    const part = await call("join_study", study.name, study.consent_version, token, query);
    token = part.participant_id;
    code = part.code;
    store("token" + worker(), token);
    store("agreed" + worker(), `${study.name} ${study.consent_version}`);
    if (part.withdrawn) return withdrawn();
    let lost = "";
    for (const entry of unsent()) {
      await callUntilAnswered(...entry).catch((error) => { lost = error.message; });
      forget(entry);
    }
    root.querySelector("#npo-vote-leave").hidden = false;
    await begin(await fetchPair(""));
    if (lost) notice(`An answer of last time was not taken: ${lost}`);
  }

  function consent() {
    const paragraphs = `${study.instructions}\n\n${study.consent}`.split(/\n\s*\n/).map((text) => text.trim()).filter(Boolean);
    const keys = `Keys: ← and → choose, ${study.choices.includes("tie") ? "↓ no difference, " : ""}${study.choices.includes("both_bad") ? "↑ both bad, " : ""}S skips, Z takes back. ${study.modality === "video" ? "Space plays and stops. " : ""}Click or hold to enlarge both.`;
    screen(study.title, [...paragraphs, element("p", { class: "npo-small" }, keys)],
      button("I agree, begin", () => join().catch((error) => screen("You cannot take part now", [error.message], button("Try again", start)))
        , { class: "npo-vote-button npo-primary", id: "npo-vote-agree" }));
  }

  async function start() {
    history = [];
    screen("One moment…", []);
    try {
      study = await call("study", new URLSearchParams(location.search).get("study") || "");
    } catch (error) {
      return screen("This study cannot be shown", [error.message], button("Try again", start), link("To the start page", base()));
    }
    if (study.name === null) return window.npoArena(root);
    document.title = study.title;
    token = store("token" + worker()) || store("token"); // whose it is, the server knows
    if (store("agreed" + worker()) === `${study.name} ${study.consent_version}` && token) {
      return join().catch((error) => screen("You cannot take part now", [error.message], button("Try again", start)));
    }
    if (study.closed) {
      return screen("No study is open here", [study.closed],
        link("Compare pictures of your own", base(), "npo-primary"), link("See what people preferred", base() + "results"));
    }
    return consent();
  }

  function mount(found) {
    root = found;
    mountStage(root,
      element("div", { id: "npo-vote-progress", class: "npo-progress", role: "progressbar", "aria-label": "Pairs answered", "aria-valuemin": "0", hidden: true }, element("span")),
      button("Leave", leave, { id: "npo-vote-leave", class: "npo-vote-button npo-quiet", hidden: true, "aria-label": "Leave the study" }));
    start();
  }

  /* Gradio draws the page after its scripts have run. */
  const waiting = new MutationObserver(() => {
    const found = document.getElementById("npo-study");
    if (!found || root) return;
    waiting.disconnect();
    mount(found);
  });
  waiting.observe(document, { childList: true, subtree: true });
})();
