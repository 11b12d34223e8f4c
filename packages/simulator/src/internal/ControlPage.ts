/** The page that lists the journal live. It needs nothing but itself; texts go in as text, never as HTML. */
export const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>simulator</title>
<style>
:root { color-scheme: light dark; font: 14px/1.4 ui-monospace, monospace }
body { margin: 1rem }
header { display: flex; gap: 1rem; align-items: baseline; flex-wrap: wrap }
h1 { font-size: 1rem; margin: 0 }
table { border-collapse: collapse; width: 100%; margin-top: 1rem }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8884; vertical-align: top }
td.number { text-align: right }
tr.faulted td, tr.client-left td { color: #c33 }
tr.open td { opacity: .6 }
</style>
</head>
<body>
<header>
<h1>simulator</h1><span id="state">connecting</span>
<form id="faults"><label>fault of every request <input name="fault" placeholder="status:503"></label> <button>set</button></form>
<button id="reset" type="button">reset</button><output id="told"></output>
</header>
<table>
<thead><tr><th>#</th><th>request</th><th>model</th><th>attempt</th><th>fault</th><th>status</th><th>outcome</th><th>tokens in/out</th><th>bytes</th><th>ms</th></tr></thead>
<tbody id="rows"></tbody>
</table>
<script>
const rows = document.getElementById("rows"), state = document.getElementById("state"), told = document.getElementById("told")
const known = new Map()
const show = (entry) => {
  let row = known.get(entry.sequence)
  if (row === undefined) {
    row = document.createElement("tr")
    known.set(entry.sequence, row)
    rows.prepend(row)
    while (rows.children.length > 1000) rows.lastChild.remove()
  }
  row.className = entry.outcome ?? "open"
  row.replaceChildren(...[
    entry.sequence, entry.method + " " + entry.path, entry.model ?? "", entry.attempt, entry.faults, entry.status ?? "",
    entry.outcome ?? "open", entry.inputTokens + "/" + entry.outputTokens, entry.bytesSent,
    entry.durationMs === undefined ? "" : Math.round(entry.durationMs)
  ].map((value) => {
    const cell = document.createElement("td")
    cell.textContent = String(value)
    if (typeof value === "number") cell.className = "number"
    return cell
  }))
}
const source = new EventSource("/__simulator/journal/events")
source.onopen = () => { state.textContent = "live" }
source.onerror = () => { state.textContent = "not connected" }
source.onmessage = (event) => show(JSON.parse(event.data))
const send = async (method, path, body) => {
  const reply = await fetch("/__simulator/" + path, { method, body })
  const json = await reply.json()
  told.textContent = json.error ?? ""
}
document.getElementById("faults").onsubmit = (event) => {
  event.preventDefault()
  const always = new FormData(event.target).get("fault")
  if (always) send("PUT", "faults", JSON.stringify({ always }))
}
document.getElementById("reset").onclick = async () => {
  await send("POST", "reset")
  known.clear()
  rows.replaceChildren()
}
</script>
</body>
</html>
`
