// Shows the pipeline as the API sees it: one event a second over a stream that is read with fetch, because that, unlike
// EventSource, can carry an access token.

const TOKEN = "fanline-pipeline-token";
const SAY_SECONDS = 10; // between two announcements to a screen reader
const RETRY_SECONDS = [1, 2, 5, 10];

const byId = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const NOTHING = "unknown";

const count = (value) => (value === null || value === undefined ? NOTHING : whole.format(value));
const rate = (value) => (value === null || value === undefined ? NOTHING : tenth.format(value));
const share = (value) => `${(100 * value).toFixed(value < 1 && value > 0.999 ? 4 : 2)} %`;
const waits = (flow) => Object.keys(flow.waits_for).sort();
const WORDS = { ok: "up to date", behind: "behind", down: "not answering" };

function size(bytes) {
  if (bytes === null || bytes === undefined) return NOTHING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
  return `${unit ? tenth.format(bytes) : whole.format(bytes)} ${units[unit]}`;
}

// Text is changed only where it differs, and elements stay, so that a reader's place in a table is kept.
function write(element, text, state) {
  if (element.textContent !== text) element.textContent = text;
  if (state !== undefined && element.dataset.state !== state) element.dataset.state = state;
}

function stage(name, state, words, figures) {
  const item = document.querySelector(`[data-stage="${name}"]`);
  write(item.querySelector(".state"), words, state);
  const list = item.querySelector("dl");
  const entries = Object.entries(figures);
  while (list.children.length < 2 * entries.length) {
    list.append(document.createElement("dt"), document.createElement("dd"));
  }
  while (list.children.length > 2 * entries.length) list.lastElementChild.remove();
  entries.forEach(([label, text], index) => {
    write(list.children[2 * index], label);
    write(list.children[2 * index + 1], text);
  });
}

function rows(id, entries) {
  const body = byId(id).tBodies[0];
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  for (const { key, cells } of entries) {
    let row = known.get(key);
    known.delete(key);
    if (!row) {
      row = body.insertRow();
      row.dataset.key = key;
      const head = document.createElement("th");
      head.scope = "row";
      row.append(head);
      cells.forEach((cell) => { row.insertCell().className = cell.long ? "text" : ""; });
      write(head, key);
    }
    cells.forEach((cell, index) => write(row.cells[index + 1], cell.text, cell.state));
  }
  known.forEach((row) => row.remove());
}

const worst = (states) => ["down", "behind", "ok"].find((state) => states.includes(state)) ?? "ok";
const running = (connector) => connector.state === "RUNNING" && connector.tasks.length > 0
  && connector.tasks.every((task) => task === "RUNNING");

function show(facts) {
  const { database, kafka, flows, connectors, stores, api, completeness } = facts;
  const capture = connectors.length && connectors.every(running) ? "ok" : "down";
  const behindBytes = Math.max(0, ...connectors.map((each) => each.behind_bytes ?? 0));
  stage("database", database.state, database.reason || "answers",
    { "Commits a second": rate(database.commits_per_second), "Log a second": size(database.log_bytes_per_second) });
  stage("debezium", capture, capture === "ok" ? "runs" : "does not run",
    { Connectors: count(connectors.length), Behind: size(behindBytes) });
  stage("kafka", kafka.state, kafka.reason || "answers",
    { "Records a second": rate(kafka.records_per_second), Topics: count(kafka.topics) });
  const state = worst(flows.map((flow) => flow.state));
  const letters = flows.reduce((sum, flow) => sum + flow.dead_letters, 0);
  stage("flows", state, WORDS[state], {
    "Records a second": rate(flows.reduce((sum, flow) => sum + (flow.records_per_second ?? 0), 0)),
    "Dead letters": count(letters),
  });
  const kept = worst(stores.map((store) => store.state));
  stage("stores", kept, kept === "ok" ? "answer" : "not all answer",
    Object.fromEntries(stores.map((store) => [`${store.name} ${store.unit}`, count(store.holds)])));
  stage("api", api.state, "answers", { "Requests a second": rate(api.requests_per_second), Watching: count(api.watchers) });

  rows("flows", flows.map((flow) => ({
    key: flow.name,
    cells: [
      { text: waits(flow).length ? `waits for ${waits(flow).join(", ")}` : WORDS[flow.state],
        state: waits(flow).length ? worst([flow.state, "behind"]) : flow.state },
      { text: flow.answering === flow.instances ? count(flow.instances) : `${flow.answering} of ${flow.instances}` },
      { text: rate(flow.records_per_second) },
      { text: count(flow.behind_records) },
      { text: rate(flow.behind_seconds) },
      { text: count(flow.dead_letters) },
      { text: flow.name in completeness ? share(completeness[flow.name]) : "not audited" },
    ],
  })));
  rows("connectors", connectors.map((connector) => ({
    key: connector.name,
    cells: [
      { text: connector.state.toLowerCase(), state: running(connector) ? "ok" : "down" },
      { text: size(connector.behind_bytes) },
      { text: size(connector.kept_bytes) },
      { text: connector.reason || "none", long: true },
    ],
  })));
  const audited = Object.entries(completeness);
  rows("completeness", audited.map(([model, value]) => ({ key: model, cells: [{ text: share(value) }] })));
  byId("completeness").hidden = audited.length === 0;
  byId("no-completeness").hidden = audited.length > 0;

  const seen = byId("seen");
  seen.dateTime = facts.observed_at;
  write(seen, new Date(facts.observed_at).toLocaleTimeString());
  say(summary(facts, capture, letters));
}

function summary({ database, kafka, flows, stores }, capture, letters) {
  const faults = [];
  if (database.state === "down") faults.push("the database does not answer");
  if (capture === "down") faults.push("a connector does not run");
  if (kafka.state === "down") faults.push("Kafka does not answer");
  for (const store of stores) if (store.state === "down") faults.push(`${store.name} does not answer`);
  for (const flow of flows) {
    if (waits(flow).length) faults.push(`${flow.name} waits for ${waits(flow).join(" and ")}`);
    else if (flow.state !== "ok") faults.push(`${flow.name} is ${WORDS[flow.state]}`);
  }
  if (letters) faults.push(`there are dead letters`);
  return faults.length ? `Attention: ${faults.join(", ")}.` : `All ${flows.length} dataflows are up to date.`;
}

// Announced politely, when it changes, and not more often than a listener can bear.
let saidAt = -Infinity;
let later;
function say(text) {
  const line = byId("summary");
  clearTimeout(later);
  if (line.textContent === text) return;
  const wait = saidAt + 1000 * SAY_SECONDS - performance.now();
  later = setTimeout(() => { saidAt = performance.now(); write(line, text); }, Math.max(0, wait));
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    pending += value;
    const parts = pending.split("\n\n");
    pending = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data) yield JSON.parse(data);
    }
  }
}

let paused = false;
let failures = 0;
let latest;
async function watch() {
  const token = sessionStorage.getItem(TOKEN);
  try {
    const response = await fetch("/api/v1/pipeline/stream", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
    if (response.status === 401 || response.status === 403 || response.status === 422) {
      askForToken(token !== null);
      return;
    }
    if (!response.ok) throw new Error(`status ${response.status}`);
    byId("sign-in").hidden = true;
    for await (const facts of events(response)) {
      failures = 0;
      latest = facts;
      if (!paused) show(facts);
    }
  } catch {
    say("The API does not answer; trying again.");
  }
  setTimeout(watch, 1000 * RETRY_SECONDS[Math.min(failures, RETRY_SECONDS.length - 1)]);
  failures += 1;
}

function askForToken(refused) {
  sessionStorage.removeItem(TOKEN);
  byId("sign-in").hidden = false;
  say(refused ? "This access token may not see the pipeline." : "An access token is needed.");
  byId("token").focus();
}

byId("sign-in").querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, byId("token").value.trim());
  byId("token").value = "";
  byId("main").focus();
  watch();
});

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  if (!paused && latest) show(latest);
});

watch();
