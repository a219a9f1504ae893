/* Enlarges a picture: any <button data-enlarge> shows the image inside it in a dialog; Escape or a click closes it. */
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-enlarge]");
  if (!button) return;
  const image = button.querySelector("img");
  if (!image) return;
  const dialog = document.createElement("dialog");
  dialog.className = "npo-viewer";
  dialog.setAttribute("aria-label", image.alt + ", enlarged; press Escape to close");
  const large = document.createElement("img");
  large.src = image.src;
  large.alt = image.alt;
  const close = document.createElement("button");
  close.type = "button";
  close.className = "npo-viewer-close";
  close.setAttribute("aria-label", "Close");
  close.textContent = "×";
  dialog.append(large, close);
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    button.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
});

/* Says aloud that pictures are ready, or why there are none: the stage is drawn anew each time, so it is no live region
   itself. */
(() => {
  let line, busy = false;
  const tell = () => {
    const stage = document.querySelector("#npo-stage .npo-stage");
    if (!stage) return;
    if (!line) {
      line = document.createElement("p");
      line.className = "npo-hidden";
      line.setAttribute("role", "status");
      document.body.append(line);
    }
    const now = stage.getAttribute("aria-busy") === "true";
    if (busy && !now && stage.querySelector("[data-enlarge], video")) line.textContent = "Ready: which one is best?";
    else if (now && !busy) line.textContent = "Making three of them from your prompt.";
    busy = now;
  };
  new MutationObserver(tell).observe(document.documentElement, { childList: true, subtree: true });
})();

/* A prompt that was begun is there again after a reload. */
document.addEventListener("input", (event) => {
  if (!event.target.closest("#npo-prompt")) return;
  try { sessionStorage.setItem("npo-prompt", event.target.value); } catch { /* a browser that keeps nothing */ }
});
