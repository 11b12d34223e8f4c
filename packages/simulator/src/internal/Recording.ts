/** Passes requests on to a real upstream, and keeps what came back as fixtures. No secret gets into them. */
import { Effect, Predicate } from "effect"
import type * as Script from "../Script.ts"
import * as Answer from "./Answer.ts"
import type * as ApiError from "./ApiError.ts"
import * as Fixtures from "./Fixtures.ts"
import * as Json from "./Json.ts"
import type { Record } from "./Recorder.ts"

export interface Options {
  /** The upstream's base URL, ends in `/v1`. */
  readonly upstream: string
  /** Sent in place of the caller's key. */
  readonly apiKey?: string | undefined
  /** In place of the global one. */
  readonly fetch?: ((url: string, init: RequestInit) => Promise<Response>) | undefined
}

/** Keys, as they may stand in a body or in an error that quotes them. */
const secrets = /\b(sk|sess|pk|ek)-[\w-]{8,}|\bBearer\s+[\w.~+/-]{8,}=*/gu

const clean = (text: string): string =>
  text.replaceAll(secrets, (_, kind?: string) => (kind === undefined ? "Bearer …" : `${kind}-…`))

const cleanJson = (json: unknown): unknown => {
  const text = JSON.stringify(json)
  return text === undefined ? undefined : JSON.parse(clean(text))
}

/** What belongs to one connection, or what `fetch` does by itself. */
const ownHeaders = new Set([
  "host",
  "connection",
  "content-length",
  "accept-encoding",
  "transfer-encoding",
  "x-sim-fault"
])

/** Told upstream by the account, not by the reply. */
const kept = ["content-type", "retry-after", "retry-after-ms", "x-should-retry"]

export class Recording {
  readonly #options: Options
  readonly #fixtures: Array<Script.Fixture> = []

  constructor(options: Options) {
    this.#options = options
  }

  get script(): Script.Script {
    return { fixtures: [...this.#fixtures], unmatched: "refuse" }
  }

  /** The upstream's answer, of which a fixture is made; a 502 where it cannot be reached. */
  forward(record: Record, search: string, bytes: Buffer): Effect.Effect<Answer.Answer> {
    const { apiKey, upstream } = this.#options
    const send = this.#options.fetch ?? fetch
    const headers = new Headers()
    for (const [name, value] of Object.entries(record.headers)) {
      if (!ownHeaders.has(name) && value !== undefined) headers.set(name, String(value))
    }
    if (apiKey !== undefined) headers.set("authorization", `Bearer ${apiKey}`)
    const url = `${upstream.replace(/\/$/, "")}${record.path.replace(/^\/v1/, "")}${search}`
    return Effect.tryPromise(async (signal) => {
      const body = bytes.length === 0 ? null : Uint8Array.from(bytes)
      const response = await send(url, { method: record.method, headers, body, signal, redirect: "manual" })
      return { response, content: Buffer.from(await response.arrayBuffer()) }
    }).pipe(
      Effect.map(({ content, response }) => {
        const reply = replyOf(response, content)
        this.#fixtures.push({
          name: `${record.method} ${record.path} ${this.#fixtures.length + 1}`,
          when: {
            method: record.method,
            path: clean(record.path),
            ...(Predicate.isObject(record.body) ? { body: cleanJson(record.body) } : {})
          },
          reply
        })
        return Fixtures.answer(replyOf(response, content, false)) ?? Answer.json("")
      }),
      Effect.catch(() =>
        Effect.succeed(
          Answer.error({
            status: 502,
            message: `The upstream ${new URL(url).origin} cannot be reached.`,
            type: "server_error",
            param: null,
            code: "upstream_unreachable"
          } satisfies ApiError.ApiError)
        )
      )
    )
  }
}

const replyOf = (response: Response, content: Buffer, cleaned = true): Script.Reply => {
  const type = response.headers.get("content-type") ?? "application/octet-stream"
  const headers = Object.fromEntries(
    kept.flatMap((name) => {
      const value = response.headers.get(name)
      return value === null ? [] : [[name, value]]
    })
  )
  const text = (value: string) => (cleaned ? clean(value) : value)
  if (type.startsWith("text/event-stream") && response.status === 200) {
    return { events: eventsOf(text(content.toString())) }
  }
  const { status } = response
  if (type.startsWith("application/json")) {
    const json = Json.parse(text(content.toString()))
    return json === undefined
      ? { status, headers, body: text(content.toString()) }
      : { status, headers, json }
  }
  return type.startsWith("text/")
    ? { status, headers, body: text(content.toString()) }
    : { status, headers, base64: content.toString("base64") }
}

const eventsOf = (text: string): NonNullable<Script.Reply["events"]> =>
  text.split(/\r\n\r\n|\n\n|\r\r/u).flatMap((block) => {
    const fields = block.split(/\r\n|\n|\r/u)
    const values = (name: string) =>
      fields.flatMap((line) =>
        line.startsWith(`${name}:`) ? [line.slice(name.length + 1).replace(/^ /, "")] : []
      )
    const data = values("data").join("\n")
    const [event] = values("event")
    if (data === "") return []
    return [{ ...(event === undefined ? {} : { event }), data: Json.parse(data) ?? data }]
  })
