// The worklist: keys, filter fields, and studies that appear by themselves.
"use strict";

(() => {
  const form = document.getElementById("search");
  const line = document.getElementById("q");
  const filters = document.getElementById("filters");
  const toggle = document.getElementById("filters-toggle");
  const state = document.getElementById("live");
  const LAST = "lightbox.study";
  const results = () => document.getElementById("results");
  const body = () => document.getElementById("rows");
  const lines = () => [...document.querySelectorAll("#rows .study")];
  const current = () => document.activeElement.closest?.("#rows .study");
  const dialog = () => document.querySelector("dialog[open]");

  // --- search and filters ----------------------------------------------------------------------------------------
  function mark() {
    let count = 0;
    for (const field of filters.querySelectorAll("input, select")) {
      field.toggleAttribute("data-filled", field.value !== "");
      count += field.value !== "";
    }
    toggle.textContent = count ? `Filters (${count})` : "Filters";
  }

  toggle.addEventListener("click", () => {
    toggle.setAttribute("aria-expanded", String(filters.classList.toggle("shown")));
  });
  form.addEventListener("input", mark);
  document.getElementById("clear").addEventListener("click", (event) => {
    event.preventDefault();
    for (const field of form.querySelectorAll("input, select")) field.value = "";
    form.dispatchEvent(new Event("input", { bubbles: true }));
    line.focus();
  });
  // Empty fields stay out of the request, and so out of the address.
  form.addEventListener("htmx:configRequest", (event) => {
    for (const [name, value] of [...event.detail.formData.entries()]) if (!value) event.detail.formData.delete(name);
  });

  // --- keys ------------------------------------------------------------------------------------------------------
  function focus(row) {
    const link = row && row.querySelector(".open");
    if (!link) return;
    link.focus();
    row.scrollIntoView({ block: "nearest" });
  }

  function move(step) {
    const all = lines();
    const at = all.indexOf(current());
    if (at < 0) return focus(step > 0 ? all[0] : all[all.length - 1]);
    if (at + step >= all.length) return document.querySelector("#rows .more a")?.click();
    focus(all[Math.max(0, at + step)]);
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || dialog()) return;
    if (lightbox.typing(event.target)) {
      if (event.key === "Escape") {
        event.preventDefault();
        event.target.blur();
        results().focus();
      } else if (event.key === "ArrowDown" && event.target === line) {
        event.preventDefault();
        move(1);
      }
      return;
    }
    const row = current();
    if (event.key === "/") {
      line.focus();
      line.select();
    } else if (event.key === "j" || (event.key === "ArrowDown" && row)) move(1);
    else if (event.key === "k" || (event.key === "ArrowUp" && row)) move(-1);
    else if (event.key === "o" && row) row.querySelector(".details").click();
    else if (event.key === "Escape") document.activeElement.blur();
    else return;
    event.preventDefault();
  });

  document.addEventListener("click", (event) => {
    const row = event.target.closest("#rows .study");
    if (!row) return;
    sessionStorage.setItem(LAST, row.dataset.uid);
    if (!event.target.closest("a") && !document.getSelection().toString()) focus(row);
  });
  document.addEventListener("dblclick", (event) => {
    const row = event.target.closest("#rows .study");
    if (row && !event.target.closest("a")) row.querySelector(".open").click();
  });

  const withRow = (run) => () => { const row = lines().find((one) => one.dataset.uid === sessionStorage.getItem(LAST)) || lines()[0]; if (row) run(row); };
  lightbox.add("Search", "/", () => line.focus());
  lightbox.add("Open the chosen study in the viewer", "Enter", withRow((row) => row.querySelector(".open").click()));
  lightbox.add("Study page of the chosen study", "o", withRow((row) => row.querySelector(".details").click()));
  lightbox.add("Clear the search", "", () => document.getElementById("clear").click());
  document.addEventListener("focusin", (event) => {
    const row = event.target.closest?.("#rows .study");
    if (row) sessionStorage.setItem(LAST, row.dataset.uid);
  });

  // --- live ------------------------------------------------------------------------------------------------------
  const changed = new Set();
  let pointerInside = false;
  let looking = false;
  let again = false;
  let notices = 0;

  document.addEventListener("pointerover", (event) => { pointerInside = Boolean(event.target.closest?.("#rows")); });
  document.addEventListener("pointerleave", () => { pointerInside = false; });

  function url(path, extra) {
    const query = new URLSearchParams(results().dataset.search);
    for (const [name, value] of extra) if (value) query.append(name, value);
    return `${path}?${query}`;
  }

  async function rowsOf(address) {
    const answer = await fetch(address, { credentials: "same-origin", headers: { "HX-Request": "true" } });
    if (answer.status === 401) {
      await lightbox.refresh();
      return [];
    }
    if (!answer.ok) return [];
    const holder = document.createElement("template");
    holder.innerHTML = `<table><tbody>${await answer.text()}</tbody></table>`;
    return [...holder.content.querySelectorAll("tr.study")];
  }

  // At the top, with nothing pointed at or chosen, a line may come in without disturbing anybody.
  const idle = () => results().scrollTop < 8 && !pointerInside && !current() && !dialog();

  function insert(rows) {
    const known = new Set(lines().map((row) => row.dataset.uid));
    const fresh = rows.filter((row) => !known.has(row.dataset.uid));
    fresh.forEach((row) => row.classList.add("fresh"));
    body().prepend(...fresh);
    if (window.htmx) window.htmx.process(body());
    lightbox.tell(body());
  }

  function announce(count) {
    const button = document.getElementById("fresh");
    notices = count;
    button.hidden = count === 0;
    button.textContent = `${count >= 50 ? "50 or more" : count} new ${count === 1 ? "study" : "studies"} – show`;
  }

  const pause = (ms) => new Promise((done) => setTimeout(done, ms));

  // One look at a time, and one a second at most, however busy the scanners are.
  async function look() {
    if (results().hasAttribute("data-further")) return;
    if (looking) {
      again = true;
      return;
    }
    looking = true;
    try {
      const first = lines()[0];
      const rows = await rowsOf(url("/worklist/new", [["since", first?.dataset.cursor]]));
      if (rows.length && !body()) window.htmx.trigger(form, "submit");
      else if (rows.length && rows.length < 50 && idle()) {
        insert(rows);
        announce(0);
      } else if (rows.length !== notices) announce(rows.length);
      await pause(1000);
    } catch {
      // The stream's own state says that the server can't be reached.
    } finally {
      looking = false;
      if (again) {
        again = false;
        look();
      }
    }
  }

  async function renew() {
    const uids = lines().map((row) => row.dataset.uid).filter((uid) => changed.has(uid)).slice(0, 50);
    changed.clear();
    if (!uids.length) return;
    for (const row of await rowsOf(`/worklist/rows?${new URLSearchParams(uids.map((uid) => ["uid", uid]))}`)) {
      const old = lines().find((one) => one.dataset.uid === row.dataset.uid);
      if (!old) continue;
      // Cells are exchanged one by one; what has the focus stays.
      for (const [index, cell] of [...row.cells].entries()) {
        if (old.cells[index] && !old.cells[index].contains(document.activeElement) && old.cells[index].innerHTML !== cell.innerHTML) old.cells[index].replaceWith(cell.cloneNode(true));
      }
      lightbox.tell(old);
    }
  }

  document.addEventListener("click", (event) => {
    if (event.target.id !== "fresh") return;
    announce(0);
    results().scrollTop = 0;
    window.htmx.trigger(form, "submit");
  });

  function show(kind, text) {
    state.dataset.state = kind;
    state.lastElementChild.textContent = text;
    state.title = kind === "on" ? "New studies appear by themselves" : "New studies do not appear by themselves at the moment; trying again";
  }

  let source;
  let retry = 2000;

  // A tab that nobody sees gives its connection back: browsers have few of them for one site.
  function listen() {
    if (document.hidden || (source && source.readyState !== EventSource.CLOSED)) return;
    source = new EventSource("/events");
    source.addEventListener("hello", () => {
      show("on", "live");
      retry = 2000;
      look();
    });
    source.addEventListener("studies", (event) => {
      const known = new Set(lines().map((row) => row.dataset.uid));
      const changes = JSON.parse(event.data);
      for (const change of changes) if (known.has(change.study_uid)) changed.add(change.study_uid);
      if (!known.size || changes.some((change) => change.change === "created" && !known.has(change.study_uid))) look();
      if (changed.size) renew().catch(() => {});
    });
    source.addEventListener("refresh", () => { lines().forEach((row) => changed.add(row.dataset.uid)); look(); renew().catch(() => {}); });
    source.addEventListener("error", async () => {
      if (source.readyState !== EventSource.CLOSED) return show("waiting", "live");
      show("off", "not live");
      source.close();
      await lightbox.refresh();
      setTimeout(listen, retry);
      retry = Math.min(retry * 2, 60000);
    });
  }

  window.addEventListener("pagehide", () => source?.close());
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) source?.close();
    else listen();
  });
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) listen();
    const row = lines().find((one) => one.dataset.uid === sessionStorage.getItem(LAST));
    const [entry] = performance.getEntriesByType("navigation");
    if (row && entry?.type === "back_forward") focus(row);
  });
  mark();
  listen();
})();
