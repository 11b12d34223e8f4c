/**
 * `GET /openapi.json`, and `GET /docs`: a page that lists what stands in it. The page needs nothing from elsewhere.
 */
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as ApiDescription from "./ApiDescription.ts"

const style = `
:root { color-scheme: light dark; --line: light-dark(#d9dde3, #333a44); --soft: light-dark(#5b6472, #9aa5b4);
  --card: light-dark(#fff, #171b21); --page: light-dark(#f6f7f9, #0f1216); --text: light-dark(#15191f, #e6e9ee) }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 64rem; margin: 0 auto; padding: 2rem 1rem 4rem }
h1 { margin: 0 0 .25rem; font-size: 1.6rem }
h2 { margin: 2rem 0 .5rem; font-size: 1.05rem }
p { margin: .25rem 0; color: var(--soft) }
code, .path, .method { font-family: ui-monospace, monospace; font-size: .875rem }
input { width: 100%; margin-top: 1rem; padding: .55rem .75rem; font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: .5rem }
details { background: var(--card); border: 1px solid var(--line); border-top-width: 0 }
details:first-of-type { border-top-width: 1px; border-top-left-radius: .5rem; border-top-right-radius: .5rem }
details:last-of-type { border-bottom-left-radius: .5rem; border-bottom-right-radius: .5rem }
summary { display: grid; grid-template-columns: 4.5rem 1fr auto; gap: .75rem; padding: .5rem .75rem; cursor: pointer }
summary::marker { content: "" }
.method { font-weight: 700 }
.get { color: light-dark(#0a6b3d, #57d49b) } .post { color: light-dark(#0b57b0, #7cb8ff) }
.delete { color: light-dark(#b3261e, #ff8a80) } .patch, .put { color: light-dark(#8a5a00, #f0bf5f) }
.path { overflow-wrap: anywhere }
.operation { color: var(--soft); font-size: .875rem; overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: 9rem 1fr; gap: .25rem .75rem; margin: 0; padding: .5rem .75rem 1rem 6rem }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
@media (max-width: 40rem) { summary { grid-template-columns: 4rem 1fr } .operation { grid-column: 2 }
  dl { grid-template-columns: 1fr; padding-left: .75rem } dd { margin-bottom: .5rem } }
`

/** Texts go into the page as text: nothing of the document is taken for markup. */
const script = `
const make = (tag, name, ...inner) => { const made = document.createElement(tag); if (name) made.className = name
  made.append(...inner); return made }
const row = (title, value) => value ? [make("dt", "", title), make("dd", "", value)] : []
const main = document.querySelector("main")
fetch("openapi.json").then((reply) => reply.json()).then((api) => {
  const look = (part) => part.$ref ? part.$ref.slice(2).split("/").reduce((inner, name) => inner[name], api) : part
  document.querySelector("#about").textContent = api.info.description
  const groups = new Map()
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, operation] of Object.entries(methods)) {
      const asked = (operation.parameters ?? []).map(look).map(({ name }) => name)
      const replies = Object.entries(operation.responses).map(([status, reply]) => [status, look(reply)])
      const told = replies.flatMap(([, reply]) => Object.keys(reply.headers ?? {}))
      const kinds = (of) => Object.keys(of?.content ?? {}).join(", ")
      const item = make("details", "",
        make("summary", "", make("span", "method " + method, method.toUpperCase()), make("span", "path", path),
          make("span", "operation", operation.operationId)),
        make("dl", "", ...row("", operation.summary), ...row("Parameters", asked.join(", ")),
          ...row("Body", kinds(operation.requestBody)), ...row("Reply", kinds(replies[0]?.[1])),
          ...row("Headers told", [...new Set(told)].join(", ")),
          ...row("Answers", replies.map(([status, reply]) => status + ": " + reply.description).join(" · "))))
      item.dataset.text = (method + " " + path + " " + operation.operationId).toLowerCase()
      const [tag] = operation.tags
      groups.set(tag, [...(groups.get(tag) ?? []), item])
    }
  for (const [tag, items] of groups) main.append(make("section", "", make("h2", "", tag), ...items))
}).catch(() => { document.querySelector("#about").textContent = "openapi.json could not be read." })
document.querySelector("input").addEventListener("input", ({ target }) => {
  const words = target.value.toLowerCase().split(" ").filter(Boolean)
  for (const section of document.querySelectorAll("section")) {
    const items = [...section.querySelectorAll("details")]
    for (const item of items) item.hidden = !words.every((word) => item.dataset.text.includes(word))
    section.hidden = items.every((item) => item.hidden)
  }
})
`

const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>llm gateway: reference</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>llm gateway</h1>
<p id="about"></p>
<p><a href="openapi.json">openapi.json</a> · <a href="https://platform.openai.com/docs/api-reference">bodies and replies</a></p>
<input type="search" placeholder="Search paths and operations" aria-label="Search paths and operations">
</main>
<script>${script}</script>
</body>
</html>
`

/** Nothing but what is on the page itself. */
const policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"

/**
 * The two routes.
 *
 * @param admin whether the admin API is described too
 */
export const layer = (admin: boolean): Layer.Layer<never, never, HttpRouter.HttpRouter> =>
  HttpRouter.use(
    Effect.fnUntraced(function* (router) {
      const description = HttpServerResponse.jsonUnsafe(ApiDescription.make(admin))
      yield* router.add("GET", "/openapi.json", Effect.succeed(description))
      const html = HttpServerResponse.text(page, {
        contentType: "text/html; charset=utf-8",
        headers: { "content-security-policy": policy, "x-content-type-options": "nosniff" }
      })
      yield* router.add("GET", "/docs", Effect.succeed(html))
    })
  )
