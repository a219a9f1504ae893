/* What the full-screen pages share (vote.js, arena.js): calls that are repeated until they are answered, elements, one
   screen at a time, pictures and clips that are ready when they are shown. They draw into the element that is mounted. */
window.npoStage = (() => {
  const HOLD_MS = 250;
  let root, onKey = () => {};

  const base = () => location.pathname.replace(/\/vote\/?$/, "/");
  const store = (key, value) => {
    try {
      if (value === undefined) return localStorage.getItem("npo-" + key) || "";
      localStorage.setItem("npo-" + key, value);
    } catch { /* a browser that keeps nothing: the person takes part without coming back */ }
    return "";
  };
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

  async function call(name, ...data) {
    const answer = await fetch(base() + "gradio_api/run/" + name, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ data }),
    });
    const told = await answer.json().catch(() => ({}));
    const refused = answer.status >= 400 && answer.status < 500 && answer.status !== 429; // the rest may be said again
    if (!answer.ok) throw Object.assign(new Error(told.error || "The server does not answer."), { refused });
    return told.data[0];
  }

  /* Tries again until the server answers, so that a bad connection loses nothing. */
  async function callUntilAnswered(name, ...data) {
    for (let wait = 500; ; wait = Math.min(2 * wait, 15000)) {
      try {
        const answer = await call(name, ...data);
        notice("");
        return answer;
      } catch (error) {
        if (error.refused) throw error;
        notice("The server cannot be reached at the moment; your answers are kept and will be sent.");
        await sleep(wait);
      }
    }
  }

  // Elements

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  const button = (text, action, attributes = {}) =>
    element("button", { type: "button", class: "npo-vote-button", onclick: action, ...attributes }, text);

  const link = (text, address, kind = "") => element("a", { class: `npo-vote-button ${kind}`, href: address }, text);

  function notice(text) {
    const line = root.querySelector("#npo-vote-notice");
    if (line && line.textContent !== text) line.textContent = text;
  }

  function say(text) {
    root.querySelector("#npo-vote-live").textContent = text;
  }

  /* One screen in the middle: a title, paragraphs, what can be pressed. Enter or space presses the first. */
  function screen(title, paragraphs, ...buttons) {
    const heading = element("h1", { tabindex: "-1" }, title);
    stage(element("section", { class: "npo-vote-text" }, heading,
      ...paragraphs.map((text) => (typeof text === "string" ? element("p", {}, text) : text)),
      element("div", { class: "npo-vote-buttons" }, ...buttons)));
    onKey = (event) => {
      const free = event.target === document.body || event.target === heading;
      if ((event.key === "Enter" || event.key === " ") && free && buttons[0]) {
        event.preventDefault();
        buttons[0].click();
      }
    };
    buttons.forEach((each) => each.addEventListener("click", () => { // under way: pressing again would do it twice
      onKey = () => {};
      setTimeout(() => buttons.forEach((other) => { other.disabled = true; }));
    }, { capture: true }));
    heading.focus({ preventScroll: true });
  }

  function stage(...content) {
    root.querySelector("#npo-vote-stage").replaceChildren(...content);
  }

  // Media

  /* The element of one side, ready to be seen. Pictures are decoded before, so that showing them takes no time. */
  async function mediaElement(source, side) {
    const label = `${side} ${source.startsWith("data:video/") ? "clip" : "picture"}`;
    if (source.startsWith("data:video/")) {
      const blob = await (await fetch(source)).blob();
      const clip = element("video", { muted: true, loop: true, playsinline: true, preload: "auto", "aria-label": label });
      clip.muted = true;
      await new Promise((ready, failed) => {
        clip.addEventListener("canplaythrough", ready, { once: true });
        clip.addEventListener("error", () => failed(new Error("a clip failed to load")), { once: true });
        clip.src = URL.createObjectURL(blob);
        clip.load();
      });
      return clip;
    }
    const picture = element("img", { alt: label, draggable: "false" });
    picture.src = source;
    await picture.decode().catch(() => { throw new Error("a picture failed to load"); });
    return picture;
  }

  /* Makes told.left and told.right elements of those names, of what was fetched; tries twice, tells each fault, and says
     so in told.failed. */
  async function loadPair(told, names, onFault) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        [told.leftMedia, told.rightMedia] = await Promise.all([mediaElement(told.left, names[0]), mediaElement(told.right, names[1])]);
        told.left = told.right = null;
        return told;
      } catch (error) {
        onFault(error);
        if (attempt === 2) {
          told.failed = true;
          return told;
        }
      }
    }
  }

  function play(pair, from = 0) {
    const clips = [pair.leftMedia, pair.rightMedia].filter((clip) => clip.tagName === "VIDEO");
    for (const clip of clips) clip.currentTime = from;
    const frame_s = pair.fps ? 1 / pair.fps : undefined;
    Promise.all(clips.map((clip) => clip.play())).then(() => clips.length && window.npoKeepInStep(clips, frame_s), () => {});
  }

  function togglePlay(pair) {
    const clips = [pair.leftMedia, pair.rightMedia].filter((clip) => clip.tagName === "VIDEO");
    if (!clips.length) return;
    if (clips[0].paused) play(pair);
    else clips.forEach((clip) => clip.pause());
  }

  /* One side, a button. Without `press` a click or a hold enlarges both at the same place; with it a click presses, and
     only a hold enlarges. */
  function panel(media, label, press) {
    const frame = element("button", {
      type: "button", class: "npo-vote-panel", "aria-label": label, "aria-pressed": press ? null : "false",
    }, media);
    let pressedAt = 0;
    let wasZoomed = false;
    let holding;
    const both = () => root.querySelectorAll(".npo-vote-panel");
    const zoom = (on) => both().forEach((each) => {
      each.classList.toggle("zoomed", on);
      if (!press) each.setAttribute("aria-pressed", String(on));
    });
    const follow = (event) => {
      const box = frame.getBoundingClientRect();
      const x = (100 * (event.clientX - box.left)) / box.width;
      const y = (100 * (event.clientY - box.top)) / box.height;
      both().forEach((each) => {
        each.style.setProperty("--x", `${Math.min(100, Math.max(0, x))}%`);
        each.style.setProperty("--y", `${Math.min(100, Math.max(0, y))}%`);
      });
    };
    frame.addEventListener("pointerdown", (event) => {
      wasZoomed = frame.classList.contains("zoomed");
      pressedAt = event.timeStamp;
      follow(event);
      holding = setTimeout(() => zoom(true), press ? HOLD_MS : 0);
    });
    frame.addEventListener("pointermove", (event) => frame.classList.contains("zoomed") && follow(event));
    if (press) {
      for (const end of ["pointerup", "pointercancel", "pointerleave"]) {
        frame.addEventListener(end, () => {
          clearTimeout(holding);
          zoom(false);
        });
      }
      frame.addEventListener("contextmenu", (event) => event.preventDefault()); // what a long touch brings up
    }
    frame.addEventListener("click", (event) => {
      const brief = event.detail === 0 || event.timeStamp - pressedAt < HOLD_MS;
      if (press) return brief ? press() : undefined;
      if (event.detail === 0) return zoom(!frame.classList.contains("zoomed")); // the keyboard: around the middle
      clearTimeout(holding);
      return zoom(!wasZoomed && brief);
    });
    return frame;
  }

  /* What lies behind the full-screen stage can be neither seen nor reached with the Tab key. */
  function hideTheRest() {
    for (let each = root; each !== document.body; each = each.parentElement) {
      for (const sibling of each.parentElement.children) {
        if (sibling !== each && !["SCRIPT", "STYLE"].includes(sibling.tagName)) sibling.inert = true;
      }
    }
  }

  /* `top` is what stands in the line at the top. */
  function mount(found, ...top) {
    root = found;
    hideTheRest();
    root.replaceChildren(
      element("header", { class: "npo-vote-top" }, ...top),
      element("main", { id: "npo-vote-stage" }),
      element("p", { id: "npo-vote-notice", role: "status" }),
      element("p", { id: "npo-vote-live", class: "npo-hidden", "aria-live": "polite" }),
    );
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
      onKey(event);
    });
  }

  const listen = (handler) => { onKey = handler; };

  return { base, button, call, callUntilAnswered, element, link, listen, loadPair, mount, notice, panel, play, say, screen, sleep, stage, store, togglePlay };
})();
