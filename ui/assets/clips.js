/* Plays the clips inside each .npo-clips in step: one play, pause, scrub and frame stepping for all of them. The clips
   are muted and loop; the first one sets the pace, and whichever is half a frame off is put right. */
(() => {
  const DRIFT_FRAMES = 0.5;

  function blobAddress(source) {
    const [head, data] = source.split(",");
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    return URL.createObjectURL(new Blob([bytes], { type: head.slice(5).split(";")[0] }));
  }

  /* Puts right whichever of the playing videos is too far from the first one; they loop, so the end is near the start. */
  function align([lead, ...others], frame_s) {
    const { duration, currentTime } = lead;
    for (const video of others) {
      const off = ((video.currentTime - currentTime + 1.5 * duration) % duration) - duration / 2;
      if (Math.abs(off) > DRIFT_FRAMES * frame_s && !video.seeking) video.currentTime = currentTime;
    }
  }

  /* For pages with a control of their own: keeps `videos` in step while they play and are on the page. */
  window.npoKeepInStep = (videos, frame_s = 1 / 8) => {
    const watch = () => {
      if (!videos.every((video) => video.isConnected && !video.paused)) return;
      align(videos, frame_s);
      requestAnimationFrame(watch);
    };
    requestAnimationFrame(watch);
  };

  class Clips {
    constructor(root) {
      this.root = root;
      this.videos = [...root.querySelectorAll("video[data-clip]")];
      this.playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
      this.frames = Number(root.querySelector("[data-film]")?.dataset.film) || 16;
      const ready = this.videos.map((video) => new Promise((done) => {
        video.muted = true;
        video.addEventListener("loadeddata", done, { once: true });
        video.src = blobAddress(video.dataset.clip);
      }));
      root.addEventListener("click", (event) => this.onClick(event));
      root.addEventListener("input", (event) => this.onInput(event));
      Promise.all(ready).then(() => this.start());
    }

    get lead() { return this.videos[0]; }
    get frame_s() { return (this.lead.duration || 1) / this.frames; } // unknown before its data are there
    get frame() { return Math.min(this.frames - 1, Math.floor(this.lead.currentTime / this.frame_s + 0.01)); }
    find(name) { return this.root.querySelector(`[data-clip-do="${name}"]`); }

    start() {
      const range = this.find("scrub");
      if (range) range.max = this.frames - 1;
      this.root.dataset.ready = "";
      if (this.playing) this.play();
      else this.go(0);
      const watch = () => {
        if (!this.root.isConnected) return this.end();
        if (this.playing) align(this.videos, this.frame_s);
        this.show();
        requestAnimationFrame(watch);
      };
      watch();
    }

    end() {
      for (const video of this.videos) URL.revokeObjectURL(video.src);
    }

    play() {
      this.playing = true;
      const at = this.lead.currentTime;
      for (const video of this.videos) video.currentTime = at;
      Promise.all(this.videos.map((video) => video.play())).catch(() => this.pause());
    }

    pause() {
      this.playing = false;
      for (const video of this.videos) video.pause();
      this.go(this.frame);
    }

    /* The middle of a frame, so that no rounding shows its neighbour. */
    go(frame) {
      const wanted = (frame + this.frames) % this.frames;
      for (const video of this.videos) video.currentTime = (wanted + 0.5) * this.frame_s;
    }

    show() {
      const frame = this.frame;
      if (frame === this.shown && this.playing === this.shownPlaying) return;
      this.shown = frame;
      this.shownPlaying = this.playing;
      const range = this.find("scrub"), output = this.root.querySelector(".npo-clip-frame"), toggle = this.find("toggle");
      if (range && document.activeElement !== range) range.value = frame;
      if (range) range.setAttribute("aria-valuetext", `Frame ${frame + 1} of ${this.frames}`);
      if (output) output.textContent = `${frame + 1} / ${this.frames}`;
      if (toggle) {
        toggle.setAttribute("aria-label", this.playing ? "Pause" : "Play");
        toggle.classList.toggle("npo-playing", this.playing);
      }
      for (const film of this.root.querySelectorAll("[data-film]")) {
        film.style.setProperty("--npo-at", frame);
        film.style.setProperty("--npo-frames", this.frames);
      }
    }

    onClick(event) {
      const film = event.target.closest("[data-film]"), button = event.target.closest("button[data-clip-do]");
      if (film) {
        const box = film.getBoundingClientRect();
        this.pause();
        this.go(Math.floor(((event.clientX - box.left) / box.width) * this.frames));
      } else if (button?.dataset.clipDo === "toggle" || event.target.matches("video[data-clip]")) {
        if (this.playing) this.pause();
        else this.play();
      } else if (button) {
        this.pause();
        this.go(this.frame + (button.dataset.clipDo === "back" ? -1 : 1));
      }
    }

    onInput(event) {
      if (!event.target.matches('[data-clip-do="scrub"]')) return;
      if (this.playing) this.pause();
      this.go(Number(event.target.value));
    }
  }

  const attach = () => {
    for (const root of document.querySelectorAll(".npo-clips:not([data-seen])")) {
      if (!root.querySelector("video[data-clip]")) continue;
      root.dataset.seen = "";
      new Clips(root);
    }
  };
  document.addEventListener("DOMContentLoaded", attach);
  new MutationObserver(attach).observe(document.documentElement, { childList: true, subtree: true });
})();
