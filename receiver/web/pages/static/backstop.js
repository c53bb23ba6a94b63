// Enhances the pages: local times, copy buttons, and refreshes that do not jump. Pages work without it.
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

  // Show times in the visitor's zone. The tooltip keeps the exact time in UTC.
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
    // Browsers offer no Clipboard API to pages that came over plain HTTP from another machine.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    if (!copied) throw new Error("the browser did not allow it");
  }

  const labels = new WeakMap();  // the normal labels of copy buttons

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
  const NOT_PLAYED = "It could not be played; upstream's links expire.";

  // Lists show a placeholder mark behind each picture.
  function showMark(image, thumb) {
    image.hidden = true;
    thumb.classList.add("unloaded");
    thumb.title = GONE;
  }

  function tellGone(medium, around, text) {
    if (around.querySelector(".gone")) return;
    medium.hidden = true;
    const gone = document.createElement("span");
    gone.className = "gone";
    gone.textContent = text;
    around.append(gone);
  }

  function showFailed(image) {
    const thumb = image.closest(".thumb"), link = image.closest("a.picture");
    if (thumb) showMark(image, thumb);
    if (link) tellGone(image, link, GONE);
  }

  // Upstream's links expire. Capture the event, as the error events of pictures and players do not bubble.
  document.addEventListener("error", ({ target }) => {
    if (target.tagName === "IMG") showFailed(target);
    if (target.parentElement?.className === "player") tellGone(target, target.parentElement, NOT_PLAYED);
  }, true);

  // A picture may fail before this script runs.
  function showFailedBefore() {
    for (const image of document.querySelectorAll("main img:not([hidden])")) {
      if (image.complete && image.currentSrc && image.naturalWidth === 0) showFailed(image);
    }
  }

  // Refreshing: a page requests itself again, and htmx updates only what has changed.
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

  const HIDDEN_EVERY_MS = 50_000;  // refresh hidden tabs too, but rarely: their titles show the state
  let askedAt = Date.now();

  document.addEventListener("htmx:before:request", (event) => {
    if (!isRefresh(event)) return;
    const isEarly = document.hidden && Date.now() - askedAt < HIDDEN_EVERY_MS;
    if (paused || isEarly) event.preventDefault();
    else askedAt = Date.now();
  });

  document.addEventListener("htmx:before:swap", (event) => {
    if (!isRefresh(event)) return;
    // The error page was refreshed and the error is over: load the real page.
    if (event.target.dataset.error && event.detail.ctx.response.status < 400) location.reload();
    // Do not swap while the visitor is selecting text: the selection would be lost.
    if (!getSelection().isCollapsed) event.preventDefault();
  });

  // A page that cannot be refreshed must not look current: it says since when it is stale, in its title too.
  const unanswered = document.getElementById("unanswered");
  const FAILURES = {
    none: (since) => ["No answer", `No answer from Backstop since ${since}; this page is from then. `],
    401: (since) => ["Signed out", `You are signed out; this page is from ${since}. `],
    other: (since, status) => [`Error ${status}`, `Backstop answers with error ${status}; this page is from ${since}. `],
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

  // A search that no index serves continues by itself, but not for ever.
  const MOST_STEPS = 20;
  let steps = 0;

  document.addEventListener("htmx:before:request", (event) => {
    if (event.target.id !== "goes-on") return;
    steps += 1;
    if (steps > MOST_STEPS) event.preventDefault();
    announce(steps > MOST_STEPS ? "The search has stopped; you can continue it." : "Searching…");
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
    // A refresh keeps opened details open, and keeps the notice in place of a picture or player that failed to load.
    htmx_before_morph_attr: (element, { attrName }) => !(element.tagName === "DETAILS" && attrName === "open"),
    htmx_before_morph_node: (element, { newNode }) =>
      !(element.querySelector?.(":scope > .gone") && element.firstChild.src === newNode.firstChild?.src) &&
      !(element.matches?.(".unloaded") && element.firstChild.src === newNode.querySelector?.("img")?.src),
  });

  showPaused();
  show();
})();
