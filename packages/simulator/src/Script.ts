/**
 * What a simulator is to say and to do wrong: fixtures and faults, in TypeScript or in a YAML or JSON file.
 *
 * **Details**
 *
 * A fixture matches requests and gives a reply, or a sequence of them: the n-th request that it matches gets the
 * n-th, later ones the last. The first fixture that matches answers; what no fixture matches is answered as always,
 * or refused with the nearest fixture's name where `unmatched` is `refuse`.
 *
 * **Example**
 *
 * ```yaml
 * unmatched: refuse
 * fixtures:
 *   - name: weather
 *     when: { model: gpt-6-luna, prompt: /weather/i }
 *     reply:
 *       - { fault: "status:503" }
 *       - { text: "Sunny." }
 * faults:
 *   - { fault: "status:429;retry-after=1", when: { path: /v1/embeddings }, requests: [1, 2] }
 *   - { fault: "cut:3", chance: 0.1, seed: 7 }
 * ```
 */
import { Duration, Effect, Predicate, Result, Schema, SchemaIssue } from "effect"
import * as Yaml from "yaml"
import * as Fault from "./Fault.ts"
import * as Matching from "./internal/Matching.ts"
import * as Scenario from "./Scenario.ts"

const optional = <S extends Schema.Constraint>(schema: S) => Schema.optionalKey(Schema.UndefinedOr(schema))

const Positive = Schema.Int.check(Schema.isGreaterThan(0))
const Share = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
const Time = Schema.DurationFromString.annotate({ description: 'Such as "500 millis" or "30 seconds"' })

const FaultText = Schema.String.check(
  Schema.makeFilter((text) => {
    const parsed = Fault.parse(text)
    return Result.isSuccess(parsed) ? undefined : parsed.failure.message
  })
)

/** A text that must be equal, or `/pattern/flags`. */
const Pattern = Schema.String.check(
  Schema.makeFilter((text) =>
    Matching.isPattern(text) ? undefined : "expected a pattern such as /weather/i"
  )
)

/** What must hold of a request; all of what is given. */
export const Match = Schema.Struct({
  method: optional(Schema.String),
  /** With its `/v1`, without the query. */
  path: optional(Pattern),
  /** Without directives. */
  model: optional(Pattern),
  stream: optional(Schema.Boolean),
  /** What the user said last: a piece of it, or a pattern. */
  prompt: optional(Pattern),
  /** The API key, whole. */
  key: optional(Schema.String),
  headers: optional(Schema.Record(Schema.String, Pattern)),
  /** Every field of it is in the body, with this value; lists are compared whole. */
  body: optional(Schema.Unknown)
})
export type Match = typeof Match.Type

/** One reply: words for the model's place, or a whole HTTP reply. */
export const Reply = Schema.Struct({
  /** What the model says; usage, ids and events are made around it. */
  text: optional(Schema.String),
  refusal: optional(Schema.String),
  /** Arguments are JSON, as a value or as text. */
  toolCalls: optional(Schema.Array(Schema.Struct({ name: Schema.String, arguments: Schema.Unknown }))),
  /** 200 unless told. */
  status: optional(Schema.Int.check(Schema.isBetween({ minimum: 200, maximum: 599 }))),
  headers: optional(Schema.Record(Schema.String, Schema.String)),
  /** The body, as JSON. */
  json: optional(Schema.Unknown),
  /** The body, as text. */
  body: optional(Schema.String),
  /** The body, as bytes. */
  base64: optional(Schema.String),
  /** A stream: data is text, or JSON. */
  events: optional(Schema.Array(Schema.Struct({ event: optional(Schema.String), data: Schema.Unknown }))),
  /** What goes wrong with the reply; alone: with the reply that there would have been. */
  fault: optional(FaultText)
})
export type Reply = typeof Reply.Type

export const Fixture = Schema.Struct({
  name: optional(Schema.String),
  /** Without it every request matches. */
  when: optional(Match),
  reply: Schema.Union([Reply, Schema.NonEmptyArray(Reply)])
})
export type Fixture = typeof Fixture.Type

/** A fault and its schedule; without one every request that matches has it. */
export const FaultRule = Schema.Struct({
  fault: FaultText,
  when: optional(Match),
  /** Numbers of the requests that match, from 1. */
  requests: optional(Schema.Array(Positive)),
  /** A share of them. */
  chance: optional(Share),
  seed: optional(Schema.Int),
  /** A burst: of every so many requests the last `length` (1). */
  every: optional(Positive),
  length: optional(Positive),
  /** An outage by numbers, both included. */
  from: optional(Positive),
  to: optional(Positive),
  /** An outage by time since the script was installed: from `after` (0) on, `for` so long (for ever). */
  after: optional(Time),
  for: optional(Time)
})
export type FaultRule = typeof FaultRule.Type

/** The whole file. */
export const Script = Schema.Struct({
  $schema: optional(Schema.String),
  fixtures: optional(Schema.Array(Fixture)),
  /** The first rule that has a fault for a request holds; each counts for itself. */
  faults: optional(Schema.Array(FaultRule)),
  /** What becomes of a request that no fixture matches; `answer` unless told. */
  unmatched: optional(Schema.Literals(["answer", "refuse"]))
}).annotate({ identifier: "llm.simulator.script", title: "Script of the llm simulator" })
export type Script = typeof Script.Type

/** The faults of a script, as a scenario. */
export const scenario = (script: Script): Scenario.Scenario =>
  Scenario.firstOf(
    ...(script.faults ?? []).map((rule) => {
      const { when } = rule
      const planned = schedule(rule)
      return when === undefined
        ? planned
        : Scenario.where((request) => Matching.misses(when, request).length === 0, planned)
    })
  )

const schedule = (rule: FaultRule): Scenario.Scenario => {
  const { chance, every, fault, requests } = rule
  if (requests !== undefined) return Scenario.nth(requests, fault)
  if (chance !== undefined) {
    return Scenario.probability(chance, [fault], rule.seed === undefined ? {} : { seed: rule.seed })
  }
  if (every !== undefined) return Scenario.burst({ every, length: rule.length ?? 1, fault })
  if (rule.from !== undefined || rule.to !== undefined) {
    return Scenario.outage({ from: rule.from ?? 1, to: rule.to ?? Number.POSITIVE_INFINITY, fault })
  }
  if (rule.after !== undefined || rule.for !== undefined) {
    return Scenario.window({ after: rule.after ?? 0, for: rule.for ?? Duration.infinity, fault })
  }
  return Scenario.always(fault)
}

const Problem = Schema.Struct({
  /** Such as `fixtures[1].when.stream`. */
  field: Schema.String,
  /** 1 for the first. */
  line: optional(Schema.Finite),
  column: optional(Schema.Finite),
  detail: Schema.String
})
type Problem = typeof Problem.Type

/** The file cannot be used; every wrong place is named with its line and what is wrong. */
export class ScriptInvalid extends Schema.TaggedError<ScriptInvalid>()("ScriptInvalid", {
  file: Schema.String,
  problems: Schema.Array(Problem)
}) {
  override get message(): string {
    return this.problems
      .map(({ column, detail, field, line }) => {
        const place = line === undefined ? this.file : `${this.file}:${line}:${column ?? 1}`
        return `${place}: ${field === "" ? "" : `${field}: `}${detail}`
      })
      .join("\n")
  }
}

const decode = Schema.decodeUnknownResult(Script, { onExcessProperty: "error", errors: "all" })
const formatIssue = SchemaIssue.makeFormatterStandardSchemaV1()

/**
 * Reads a script.
 *
 * @param text YAML or JSON
 * @param file its name, for the places
 * @returns fails with `ScriptInvalid`, which names every wrong place
 */
export const parse = (text: string, file = "script"): Effect.Effect<Script, ScriptInvalid> =>
  Effect.suspend(() => {
    const lines = new Yaml.LineCounter()
    const document = Yaml.parseDocument(text, { lineCounter: lines })
    const at = (offset: number) => {
      const { col, line } = lines.linePos(offset)
      return { line, column: col }
    }
    if (document.errors.length > 0) {
      const problems = document.errors.map((error) => ({
        field: "",
        ...at(error.pos[0]),
        detail: (error.message.split("\n")[0] ?? error.message).replace(/ at line \d+, column \d+:?$/u, "")
      }))
      return Effect.fail(new ScriptInvalid({ file, problems }))
    }
    const json: unknown = document.toJS() ?? {}
    const decoded = decode(json)
    if (Result.isSuccess(decoded)) return Effect.succeed(decoded.success)
    const problems = formatIssue(decoded.failure.issue).issues.map((issue): Problem => {
      const path = (issue.path ?? []).map((part) => (Predicate.isObject(part) ? part["key"] : part))
      const field = path.reduce<string>(
        (name, part) =>
          Predicate.isNumber(part) ? `${name}[${part}]` : `${name}${name === "" ? "" : "."}${String(part)}`,
        ""
      )
      return { field, ...placeOf(document, path, at), detail: issue.message.replaceAll(/\s+/gu, " ") }
    })
    return Effect.fail(new ScriptInvalid({ file, problems }))
  })

/** The place of a field, or of the nearest one around it. */
const placeOf = <A>(
  document: Yaml.Document,
  path: ReadonlyArray<unknown>,
  at: (offset: number) => A
): A | undefined => {
  for (let length = path.length; length > 0; length--) {
    const node: unknown = document.getIn(path.slice(0, length), true)
    if (Yaml.isNode(node) && node.range) return at(node.range[0])
  }
  return undefined
}

/** Writes a script as YAML, as a recording is kept. */
export const format = (script: Script): string => Yaml.stringify(script, { lineWidth: 0 })
