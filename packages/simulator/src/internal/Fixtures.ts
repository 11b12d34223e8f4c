/** The fixtures that are installed: which one answers, and with which of its replies. */
import { Predicate } from "effect"
import type * as Scenario from "../Scenario.ts"
import type * as Script from "../Script.ts"
import * as Answer from "./Answer.ts"
import * as ApiError from "./ApiError.ts"
import type * as Generation from "./Generation.ts"
import * as Matching from "./Matching.ts"

export class Fixtures {
  readonly #fixtures: ReadonlyArray<Script.Fixture>
  readonly #used: Array<number>

  constructor(fixtures: ReadonlyArray<Script.Fixture>) {
    this.#fixtures = fixtures
    this.#used = fixtures.map(() => 0)
  }

  /** The reply to this request, which counts as given. */
  next(request: Scenario.Request): Script.Reply | undefined {
    const at = this.#fixtures.findIndex(({ when }) => Matching.misses(when ?? {}, request).length === 0)
    const reply = this.#fixtures[at]?.reply
    if (reply === undefined) return undefined
    const used = this.#used[at] ?? 0
    this.#used[at] = used + 1
    return isReply(reply) ? reply : reply[Math.min(used, reply.length - 1)]
  }

  /** The refusal of a request that none matches: it names the nearest and what keeps it from matching. */
  unmatched(request: Scenario.Request): Answer.Answer {
    const [nearest] = this.#fixtures
      .map(({ name, when }, index) => ({
        name: name ?? `fixtures[${index}]`,
        misses: Matching.misses(when ?? {}, request),
        met: Matching.size(when ?? {})
      }))
      .toSorted((left, right) => left.misses.length - right.misses.length || right.met - left.met)
    const hint =
      nearest === undefined
        ? "There are none."
        : `The nearest is "${nearest.name}": ${nearest.misses.join("; ")}.`
    const error = ApiError.invalidRequest(`No fixture matches ${request.method} ${request.path}. ${hint}`, {
      status: 404,
      code: "no_fixture"
    })
    return Answer.json(ApiError.body(error), { status: error.status, headers: { "x-should-retry": "false" } })
  }
}

const isReply = (reply: Script.Fixture["reply"]): reply is Script.Reply => !Array.isArray(reply)

/** What the model says by the reply; undefined when the reply is no model's. */
export const said = ({ refusal, text, toolCalls }: Script.Reply): Generation.Said | undefined =>
  text === undefined && refusal === undefined && toolCalls === undefined
    ? undefined
    : {
        text,
        refusal,
        toolCalls: toolCalls?.map((call) => ({
          name: call.name,
          arguments: Predicate.isString(call.arguments)
            ? call.arguments
            : JSON.stringify(call.arguments ?? {})
        }))
      }

/** The whole HTTP reply; undefined when the reply leaves it to the route. */
export const answer = (reply: Script.Reply): Answer.Answer | undefined => {
  const { base64, body, events, headers = {}, json, status } = reply
  if (events !== undefined) {
    const frames = events.map(({ data, event }) => ({
      data: Predicate.isString(data) ? data : JSON.stringify(data),
      content: isContent(data),
      ...(event === undefined ? {} : { event })
    }))
    return Answer.stream(frames, undefined)
  }
  const whole = json !== undefined || body !== undefined || base64 !== undefined || status !== undefined
  if (!whole) return undefined
  const named = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value] as const)
  const contentType = named.find(([name]) => name === "content-type")?.[1]
  const bytes =
    base64 !== undefined
      ? Buffer.from(base64, "base64")
      : Buffer.from(body ?? (json === undefined ? "" : JSON.stringify(json)))
  const standard = json === undefined && body !== undefined ? "text/plain; charset=utf-8" : "application/json"
  return Answer.bytes(bytes, contentType ?? standard, {
    status: status ?? 200,
    headers: Object.fromEntries(
      named.filter(([name]) => name !== "content-type" && name !== "content-length")
    )
  })
}

/** Text, refusal and tool-call pieces, of a chunk or of a response's event. */
const isContent = (data: unknown): boolean => {
  const text = Predicate.isString(data) ? data : JSON.stringify(data)
  return /"(content|refusal|arguments)":"[^"]|"type":"response\.[a-z_.]+\.delta"/u.test(text)
}
