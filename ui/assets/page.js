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
