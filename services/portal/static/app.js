// What every page has: the session kept alive, times in the reader's words, theme, help, the palette, failures in words.
"use strict";

const lightbox = (() => {
  const REFRESH_MS = 4 * 60 * 1000;
  const locale = navigator.language || undefined;
  const day = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeZone: "UTC" });
  const moment = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" });

  // --- times -----------------------------------------------------------------------------------------------------
  function ago(then, now) {
    const seconds = Math.max(0, (now - then) / 1000);
    if (seconds < 60) return "just now";
    for (const [limit, size, unit] of [[3600, 60, "min"], [86400, 3600, "h"], [30 * 86400, 86400, "d"]]) {
      if (seconds < limit) return `${Math.floor(seconds / size)} ${unit} ago`;
    }
    return day.format(then);
  }

  function set(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function tell(root) {
    const now = Date.now();
    for (const time of root.querySelectorAll("time.ago")) {
      const then = new Date(time.dateTime);
      set(time, ago(then, now));
      time.title = moment.format(then);
    }
    for (const time of root.querySelectorAll("time.date")) {
      time.title = time.dateTime;
      set(time, day.format(new Date(`${time.dateTime}T00:00:00Z`)));
    }
    for (const time of root.querySelectorAll("time.exact")) set(time, moment.format(new Date(time.dateTime)));
  }

  // A date that is copied by itself is copied as DICOM writes it.
  document.addEventListener("copy", (event) => {
    const selection = document.getSelection();
    const node = selection && selection.anchorNode && selection.anchorNode.parentElement;
    const date = node && node.closest("[data-dicom]");
    if (date && date.contains(selection.focusNode) && selection.toString().trim() === date.textContent.trim()) {
      event.clipboardData.setData("text/plain", date.dataset.dicom);
      event.preventDefault();
    }
  });

  // --- notices ---------------------------------------------------------------------------------------------------
  function notice(text, seconds = 8) {
    const line = document.createElement("p");
    line.textContent = text;
    const place = document.getElementById("notice");
    place.replaceChildren(line);
    if (seconds) setTimeout(() => line.remove(), seconds * 1000);
  }

  // --- the session -----------------------------------------------------------------------------------------------
  let refreshed = Date.now();
  let active = Date.now();

  for (const kind of ["pointermove", "pointerdown", "keydown", "wheel"]) {
    document.addEventListener(kind, () => { active = Date.now(); }, { passive: true });
  }

  function renew() {
    location.assign(`/auth/renew?next=${encodeURIComponent(location.pathname + location.search)}`);
  }

  async function refresh() {
    try {
      const answer = await fetch(`/auth/session/refresh?idle=${Math.min(86400, Math.floor((Date.now() - active) / 1000))}`, { method: "POST", credentials: "same-origin" });
      if (answer.status === 401 || answer.status === 403) return renew(), false;
      if (answer.ok) refreshed = Date.now();
      return answer.ok;
    } catch {
      return false;
    }
  }

  if (document.getElementById("log-out")) {
    setInterval(refresh, REFRESH_MS);
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && Date.now() - refreshed > REFRESH_MS) refresh();
    });
  }

  document.addEventListener("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    if (status === 401) renew();
    else if (status === 503 || status === 429) notice("The list can't be loaded at the moment. What you see may be old; the images are safe. Try again shortly.");
    else notice(`That did not work (${status}). What you see was not changed. Try again, or reload the page.`);
  });
  for (const kind of ["htmx:sendError", "htmx:timeout"]) {
    document.addEventListener(kind, () => notice("No answer from the server. What you see may be old. Check the network, then try again."));
  }
  document.addEventListener("htmx:afterSwap", () => tell(document));

  // --- theme -----------------------------------------------------------------------------------------------------
  function theme() {
    const next = document.documentElement.dataset.theme === "light" ? "dark" : "light";
    document.documentElement.dataset.theme = next;
    document.cookie = `lightbox_theme=${next}; Path=/; Max-Age=31536000; SameSite=Lax`;
  }

  // --- dialogs and commands --------------------------------------------------------------------------------------
  const help = document.getElementById("help");
  const palette = document.getElementById("palette");
  const input = document.getElementById("palette-input");
  const list = document.getElementById("palette-list");
  const commands = [];

  // What belongs to the page comes before what is everywhere.
  let own = 0;

  function add(label, keys, run) {
    commands.splice(own++, 0, { label, keys, run });
  }

  function addEverywhere(label, keys, run) {
    commands.push({ label, keys, run });
  }

  function open(dialog) {
    if (!document.querySelector("dialog[open]")) dialog.showModal();
  }

  function offer() {
    const text = input.value.trim();
    const words = text.toLowerCase().split(/\s+/);
    const found = commands.filter((command) => words.every((word) => command.label.toLowerCase().includes(word)));
    if (text) found.push({ label: `Search studies: ${text}`, keys: "", run: () => location.assign(`/?q=${encodeURIComponent(text)}`) });
    list.replaceChildren(...found.map((command, index) => {
      const item = document.createElement("li");
      item.id = `palette-${index}`;
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", String(index === 0));
      item.append(command.label);
      if (command.keys) {
        const keys = document.createElement("kbd");
        keys.textContent = command.keys;
        item.append(keys);
      }
      item.addEventListener("click", () => { palette.close(); command.run(); });
      return item;
    }));
    input.setAttribute("aria-activedescendant", found.length ? "palette-0" : "");
  }

  function choose(step) {
    const items = [...list.children];
    const at = items.findIndex((item) => item.getAttribute("aria-selected") === "true");
    const next = items[(at + step + items.length) % items.length];
    if (!next) return;
    items.forEach((item) => item.setAttribute("aria-selected", String(item === next)));
    input.setAttribute("aria-activedescendant", next.id);
    next.scrollIntoView({ block: "nearest" });
  }

  input.addEventListener("input", offer);
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") choose(1);
    else if (event.key === "ArrowUp") choose(-1);
    else if (event.key === "Enter") list.querySelector('[aria-selected="true"]')?.click();
    else return;
    event.preventDefault();
  });

  const actions = {
    help: () => open(help),
    palette: () => { input.value = ""; offer(); open(palette); },
    theme,
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-command]");
    if (button) actions[button.dataset.command]();
    else if (event.target.matches("dialog")) event.target.close();
  });

  function typing(target) {
    return target.matches("input, select, textarea") || target.isContentEditable;
  }

  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      actions.palette();
    } else if (event.key === "?" && !typing(event.target) && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      actions.help();
    }
  });

  addEverywhere("Worklist", "", () => location.assign("/"));
  addEverywhere("Light or dark", "", theme);
  addEverywhere("Keys", "?", () => open(help));
  addEverywhere("API documentation", "", () => location.assign("/api/docs"));
  const out = document.getElementById("log-out");
  if (out) addEverywhere("Log out", "", () => out.click());

  // --- the study page --------------------------------------------------------------------------------------------
  for (const [selector, label, keys] of [[".open-viewer", "Open in viewer", "Enter"], [".open-mpr", "Open in three planes (MPR)", ""]]) {
    const link = document.querySelector(selector);
    if (link) add(label, keys, () => link.click());
  }
  const viewer = document.querySelector(".open-viewer");
  if (viewer) {
    document.addEventListener("keydown", (event) => {
      const idle = event.target === document.body || event.target.id === "main";
      if (event.key === "Enter" && idle && !document.querySelector("dialog[open]")) viewer.click();
    });
  }
  for (const image of document.querySelectorAll(".thumb img")) {
    const mark = () => image.parentElement.classList.add(image.naturalWidth ? "loaded" : "failed");
    if (image.complete && image.currentSrc) mark();
    image.addEventListener("load", mark);
    image.addEventListener("error", mark);
  }

  tell(document);
  setInterval(() => tell(document), 20000);

  return { add, notice, refresh, tell, typing };
})();
