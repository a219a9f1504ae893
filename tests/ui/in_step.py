"""Whether clips that play together are brought back in step when one of them is not."""

from __future__ import annotations

from playwright.sync_api import Page

SETTLE_FRAMES, SEEN_FRAMES = 10, 40  # animation frames
AT_A_SEEK = 4  # animation frames at which a video may be on its way

OFF_AFTER_A_PUSH = """async ([selector, by_s, settle, seen]) => {
  const videos = [...document.querySelectorAll(selector)], [lead, pushed] = videos, { duration } = lead;
  const apart = (video) => {
    const off = Math.abs(video.currentTime - lead.currentTime) % duration;
    return Math.min(off, duration - off);
  };
  const next = () => new Promise(requestAnimationFrame);
  const arrived = new Promise((done) => pushed.addEventListener("seeked", done, { once: true }));
  pushed.currentTime = (lead.currentTime + by_s) % duration;
  const offs = [apart(pushed)];
  await arrived;
  for (let i = 0; i < settle; i++) await next();
  for (let i = 0; i < seen; i++) {
    await next();
    offs.push(Math.max(...videos.map(apart)));
  }
  return offs;
}"""


def assert_a_video_set_off_is_brought_back(page: Page, selector: str, frame_s: float, by_s: float) -> None:
    """Sets the second of the playing videos off by `by_s`; soon after all have to be within a frame of the first."""
    pushed, *after = page.evaluate(OFF_AFTER_A_PUSH, [selector, by_s, SETTLE_FRAMES, SEEN_FRAMES])
    assert pushed > frame_s, "it was off"
    assert sorted(after)[-1 - AT_A_SEEK] <= frame_s, f"seconds apart: {after}"
