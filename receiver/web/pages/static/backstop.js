// What scripts add to the pages: the visitor's own time zone, copy buttons, and refreshing without jumps.
// Each page is complete without them.
"use strict";

(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const exactly = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
  const formats = {
    exact: exactly,
    time: new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" }),
    clock: new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }),
    slot: new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" }),
    day: new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" }),
  };

  // Moments in the visitor's zone; the exact UTC moment stays on hover.
  function localise() {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      const utc = `${time.dateTime.slice(0, 19).replace("T", " ")} UTC`;
      const kind = Object.keys(formats).find((name) => name in time.dataset);
      if (kind) {
        time.textContent = formats[kind].format(moment);
        time.title = utc;
      } else {
        time.title = `${exactly.format(moment)} (${utc})`;
      }
    }
    for (const told of document.querySelectorAll("[data-zone]")) told.textContent = `; times are ${zone}`;
  }

  async function toClipboard(text) {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    // Pages that came over plain HTTP from another machine have no clipboard but this.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    if (!copied) throw new Error("the browser refused");
  }

  const labels = new WeakMap();  // what copy buttons say when they say nothing of the last copy

  async function copy(button, text) {
    if (!labels.has(button)) labels.set(button, button.innerHTML);
    try {
      await toClipboard(await text());
      button.textContent = "Copied";
    } catch (problem) {
      button.textContent = "Not copied";
    }
    announce(button.textContent);
    setTimeout(() => { button.innerHTML = labels.get(button); }, 2000);
  }

  async function callbackUrl(form) {
    const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
    if (!answer.ok) throw new Error(answer.statusText);
    return (await answer.text()).trim();
  }

  function showButtons() {
    for (const button of document.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
    for (const form of document.querySelectorAll("form[data-copies]")) {
      form.querySelector("button").textContent = "Copy";
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button, async () => document.getElementById(button.dataset.copy).textContent);
  });

  document.addEventListener("submit", (event) => {
    if (!("copies" in event.target.dataset)) return;
    event.preventDefault();
    copy(event.target.querySelector("button"), () => callbackUrl(event.target));
  });

  const GONE = "The picture could not be loaded; upstream's links expire.";

  // In lists a quiet mark stands behind each picture.
  function showMark(image, thumb) {
    image.hidden = true;
    thumb.classList.add("unloaded");
    thumb.title = GONE;
  }

  function tellGone(image, link) {
    if (link.querySelector(".gone")) return;
    image.hidden = true;
    const gone = document.createElement("span");
    gone.className = "gone";
    gone.textContent = GONE;
    link.append(gone);
  }

  function showFailed(image) {
    const thumb = image.closest(".thumb"), link = image.closest("a.picture");
    if (thumb) showMark(image, thumb);
    if (link) tellGone(image, link);
  }

  // Upstream's links expire; the error event of a picture does not bubble.
  document.addEventListener("error", (event) => {
    if (event.target.tagName === "IMG") showFailed(event.target);
  }, true);

  // A picture may fail before this script runs.
  function showFailedBefore() {
    for (const image of document.querySelectorAll("main img:not([hidden])")) {
      if (image.complete && image.currentSrc && image.naturalWidth === 0) showFailed(image);
    }
  }

  // Refreshing: pages ask for themselves again, and htmx changes what has changed.
  const marker = document.getElementById("refreshing");
  const pause = marker.querySelector("button");
  const told = document.getElementById("told");
  let paused = sessionStorage.getItem("paused") === "yes";

  function announce(text) { told.textContent = text; }

  function showPaused() {
    marker.firstChild.textContent = paused ? "Refreshing is paused. " : "This page refreshes itself. ";
    pause.textContent = paused ? "Resume" : "Pause";
  }

  pause.addEventListener("click", () => {
    paused = !paused;
    sessionStorage.setItem("paused", paused ? "yes" : "no");
    announce("");
    showPaused();
  });

  const isRefresh = (event) => event.target.id === "content";

  const HIDDEN_EVERY_MS = 50_000;  // a tab that nobody looks at still shows its title
  let askedAt = Date.now();

  document.addEventListener("htmx:before:request", (event) => {
    if (!isRefresh(event)) return;
    const isEarly = document.hidden && Date.now() - askedAt < HIDDEN_EVERY_MS;
    if (paused || isEarly) event.preventDefault();
    else askedAt = Date.now();
  });

  document.addEventListener("htmx:before:swap", (event) => {
    if (!isRefresh(event)) return;
    // The error that was shown here is over: what is shown now is another page.
    if (event.target.dataset.error && event.detail.ctx.response.status < 400) location.reload();
    // Somebody who is choosing text to copy would lose the choice.
    if (!getSelection().isCollapsed) event.preventDefault();
  });

  // A page that cannot be refreshed must not go on looking well: it says since when, and so does its title.
  const unanswered = document.getElementById("unanswered");
  const FAILURES = {
    none: (since) => ["No answer", `No answer from Backstop since ${since}; what is shown is from then. `],
    401: (since) => ["Signed out", `You are signed out; what is shown is from ${since}. `],
    other: (since, status) => [`Error ${status}`, `Backstop answers with error ${status}; what is shown is from ${since}. `],
  };
  let titleBefore = null;

  function moment(time) {
    const at = new Date(time.dateTime);
    return (at.toDateString() === new Date().toDateString() ? formats.time : exactly).format(at);
  }

  function fail(status) {
    const since = moment(document.querySelector(".as-of time"));
    const [title, told] = (FAILURES[status] ?? FAILURES.other)(since, status);
    titleBefore ??= document.title;
    document.title = `${title} · Backstop`;
    document.body.classList.add("unanswered");
    if (unanswered.firstChild?.textContent === told) return;
    const reload = document.createElement("a");
    reload.href = location.href;
    reload.textContent = status === 401 ? "Sign in again" : "Reload";
    unanswered.replaceChildren(told, ...(status === "none" ? [] : [reload]));
    unanswered.hidden = false;
  }

  function recover() {
    if (titleBefore === null) return;
    document.title = titleBefore;
    titleBefore = null;
    document.body.classList.remove("unanswered");
    unanswered.hidden = true;
    unanswered.replaceChildren();
  }

  document.addEventListener("htmx:error", (event) => {
    if (isRefresh(event)) fail("none");
  });

  document.addEventListener("htmx:after:request", (event) => {
    if (!isRefresh(event)) return;
    const { status } = event.detail.ctx.response;
    const isShown = String(status) === event.target.dataset.error;
    if (status < 400 || isShown) recover();
    else fail(status);
  });

  // A search that no index serves goes on by itself, but not for ever.
  const MOST_STEPS = 20;
  let steps = 0;

  document.addEventListener("htmx:before:request", (event) => {
    if (event.target.id !== "goes-on") return;
    steps += 1;
    if (steps > MOST_STEPS) event.preventDefault();
    announce(steps > MOST_STEPS ? "The search has stopped; it can go on." : "Searching…");
  });

  function show() {
    localise();
    showButtons();
    showFailedBefore();
    marker.hidden = !document.querySelector("#content[hx-get]");
  }

  document.addEventListener("htmx:after:swap", (event) => {
    if (isRefresh(event)) announce("");
    show();
  });

  htmx.registerExtension("keep", {
    // What the visitor has opened stays open; a picture that is gone stays gone.
    htmx_before_morph_attr: (element, { attrName }) => !(element.tagName === "DETAILS" && attrName === "open"),
    htmx_before_morph_node: (element, { newNode }) =>
      !(element.querySelector?.(":scope > .gone") && element.href === newNode.href) &&
      !(element.matches?.(".unloaded") && element.firstChild.src === newNode.querySelector?.("img")?.src),
  });

  showPaused();
  show();
})();
