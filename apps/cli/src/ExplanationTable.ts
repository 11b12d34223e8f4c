/**
 * An explanation as a person reads it: what was asked, each step in its order, and what it cost.
 */
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import * as Redaction from "@llm/core/Redaction"
import type { Attempt, Explanation, Level, Wait } from "./Explanation.ts"
import * as Receipt from "./Receipt.ts"
import * as Screen from "./Screen.ts"

/** How words are set apart; both keep a text as it is where there are no colours. */
export interface Paint {
  readonly dim: (text: string) => string
  readonly red: (text: string) => string
}

/** Wider is no easier to read. */
const widest = 120

const counted = (count: number): string => Math.floor(count).toLocaleString("en-US")

/** Text from a server: one line, which steers no terminal and holds no secret. */
const clean = (text: string): string => Redaction.redact(Screen.withoutControls(text).replace(/\s+/gu, " "))

/** Lines of at most `width` characters; a longer word is cut. */
export const wrap = (text: string, width: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = ""
  for (const word of text.split(" ")) {
    const longer = line === "" ? word : `${line} ${word}`
    if (longer.length <= width) {
      line = longer
      continue
    }
    if (line !== "") lines.push(line)
    line = word
    for (; line.length > width; line = line.slice(width)) lines.push(line.slice(0, width))
  }
  return [...lines, line]
}

// ---------------------------------------------------------------------------
// Steps
// ---------------------------------------------------------------------------

interface Step {
  readonly at: number
  readonly took: number | undefined
  readonly what: string
  readonly deployment: string
  readonly model: string
  readonly result: string
  readonly failed: boolean
}

const resultOf = (attempt: Attempt): string => {
  const { answeredAt, endedAt, executed, failure, interrupted, requestId, startedAt } = attempt
  const billed = executed === "no" ? "" : ", may be billed"
  const request = typeof requestId === "string" ? `, request ${requestId}` : ""
  if (failure) return `${failure.error}: ${failure.message}${executed === "possibly" ? billed : ""}${request}`
  if (interrupted === true) return `given up${billed}${request}`
  if (typeof endedAt !== "number") return "still running"
  const first = typeof answeredAt === "number" ? ` after ${Receipt.seconds(answeredAt - startedAt)}` : ""
  return `answered${first}${request}`
}

const stepOfAttempt = (attempt: Attempt): Step => ({
  at: attempt.startedAt,
  took: typeof attempt.endedAt === "number" ? attempt.endedAt - attempt.startedAt : undefined,
  what: `${attempt.hedge === true ? "hedge" : "attempt"} ${attempt.number}`,
  deployment: attempt.deployment,
  model: attempt.model ?? "",
  result: resultOf(attempt),
  failed: Boolean(attempt.failure)
})

const reasons: Readonly<Record<string, string>> = {
  limits: "in line for a limit's rate or place",
  retry: "before the next attempt"
}

const stepOfWait = ({ after, at, because, milliseconds }: Wait): Step => ({
  at,
  took: milliseconds,
  what: "wait",
  deployment: "",
  model: "",
  result: `${reasons[because] ?? because}${after ? `, after ${after.error}` : ""}`,
  failed: false
})

/** In the order in which they began. */
const stepsOf = ({ attempts, waits }: Explanation): ReadonlyArray<Step> =>
  [...attempts.map(stepOfAttempt), ...waits.map(stepOfWait)].toSorted((one, other) => one.at - other.at)

const columns = ["AT", "TOOK", "STEP", "DEPLOYMENT", "MODEL"] as const

/** A row for each step, and below an attempt's what came of it: that is rarely short enough to stand beside. */
const tableOf = (steps: ReadonlyArray<Step>, width: number, { dim, red }: Paint): ReadonlyArray<string> => {
  const rows = steps.map(({ at, deployment, model, took, what }) => [
    Receipt.seconds(at),
    took === undefined ? "" : Receipt.seconds(took),
    what,
    clean(deployment),
    clean(model)
  ])
  const widths = columns.map((name, column) =>
    Math.max(name.length, ...rows.map((row) => row[column]?.length ?? 0))
  )
  // Times stand by their units.
  const lineOf = (row: ReadonlyArray<string>) =>
    widths
      .map((one, column) => row[column]?.[column < 2 ? "padStart" : "padEnd"](one) ?? "")
      .join("  ")
      .trimEnd()
  const indentOf = (column: number) =>
    " ".repeat(widths.slice(0, column).reduce((sum, one) => sum + one + 2, 0))
  return [
    dim(lineOf(columns)),
    ...rows.flatMap((row, index) => {
      const { deployment = "", failed = false, result = "" } = steps[index] ?? {}
      const beside = deployment === ""
      const indent = indentOf(beside ? 3 : 2)
      const lines = wrap(clean(result), width - indent.length).map(failed ? red : (text) => text)
      const [first = "", ...rest] = lines
      return [
        beside ? `${lineOf(row).padEnd(indent.length)}${first}` : lineOf(row),
        ...(beside ? rest : lines).map((line) => `${indent}${line}`)
      ]
    })
  ]
}

// ---------------------------------------------------------------------------
// Facts
// ---------------------------------------------------------------------------

type Fact = readonly [name: string, value: string | undefined, failed?: boolean]

/** A failure that an attempt tells of is not told twice. */
const outcomeOf = ({ attempts, failure, milliseconds, status }: Explanation): string => {
  const told = attempts.some((attempt) => attempt.failure?.error === failure?.error)
  return [
    typeof status === "number" ? String(status) : "not answered yet",
    typeof milliseconds === "number" ? ` after ${Receipt.seconds(milliseconds)}` : "",
    failure ? `, ${failure.error}${told ? "" : `: ${failure.message}`}` : ""
  ].join("")
}

const cacheOf = ({ cache, cacheScope }: Explanation): string | undefined => {
  if (typeof cache !== "string") return undefined
  if (!cacheScope) return cache
  const { ignored, model, operation, tenant } = cacheScope
  const whom = typeof tenant === "string" ? `team ${tenant}` : "every caller"
  const same = ignored && ignored.length > 0 ? `, in which ${ignored.join(", ")} may differ` : ""
  const requests = `${operation ?? "this operation"}${typeof model === "string" ? ` of ${model}` : ""}`
  return `${cache}; shared by ${whom} for equal requests to ${requests}${same}`
}

const tokensOf = ({ usage }: Explanation): string | undefined => {
  if (!usage) return undefined
  const kinds = [
    [usage.cachedTokens, "cached"],
    [usage.reasoningTokens, "reasoning"]
  ].flatMap(([count, kind]) => (typeof count === "number" && count > 0 ? [`${counted(count)} ${kind}`] : []))
  const among = kinds.length === 0 ? "" : ` (${kinds.join(", ")})`
  return `${counted(usage.inputTokens)} in, ${counted(usage.outputTokens)} out${among}`
}

/** At least two decimals: `$0.10`, `$0.125`. */
const dollarsOf = (dollars: number): string =>
  `$${/\.\d{2}/u.test(String(dollars)) ? dollars : dollars.toFixed(2)}`

/** `cachedInput` as `cached input`. */
const spoken = (kind: string): string => kind.replace(/[A-Z]/gu, (letter) => ` ${letter.toLowerCase()}`)

const priceOf = ({ price }: Explanation): string | undefined => {
  if (!price) return undefined
  const rates = Object.entries(price.dollarsPerMillion).map(
    ([kind, dollars]) => `${spoken(kind)} ${dollarsOf(dollars)}`
  )
  const list = [price.model, price.source, price.from ? `from ${price.from}` : undefined].filter(Boolean)
  return `${rates.join(", ")} per million tokens (${list.join(", ")})`
}

const costOf = ({ cost, usage }: Explanation): string | undefined =>
  typeof cost === "string" ? `$${cost}` : usage ? "unpriced" : undefined

const timeOf = (millis: number): string =>
  Option.match(DateTime.make(millis), {
    onNone: () => "later",
    onSome: (time) => `${DateTime.formatIso(time).slice(0, 19).replace("T", " ")} UTC`
  })

const levelOf = (level: Level | null | undefined, unit: string): ReadonlyArray<string> => {
  if (!level) return []
  const closed = typeof level.closedUntil === "number" ? `, closed until ${timeOf(level.closedUntil)}` : ""
  const left = Math.max(0, level.remaining)
  return [`${counted(left)} of ${counted(level.limit)} ${unit} left${closed}`]
}

const limitsOf = ({ limits }: Explanation): ReadonlyArray<string> => {
  if (!limits) return []
  const { concurrency } = limits
  const line = (waiting: number | null | undefined) => (waiting ? [`${counted(waiting)} in line`] : [])
  return [
    ...limits.limits.flatMap(({ name, requests, tokens, waiting }) => {
      const left = [...levelOf(requests, "requests"), ...levelOf(tokens, "tokens"), ...line(waiting)]
      return left.length === 0 ? [] : [`${name}: ${left.join(", ")}`]
    }),
    ...(concurrency && typeof concurrency.limit === "number"
      ? [
          [
            `${counted(concurrency.inFlight)} of ${counted(concurrency.limit)} calls at once`,
            ...line(concurrency.waiting)
          ].join(", ")
        ]
      : [])
  ]
}

const factsOf = (facts: ReadonlyArray<Fact>, width: number, { dim, red }: Paint): ReadonlyArray<string> => {
  const shown = facts.filter(([, value]) => value !== undefined)
  const indent = 9
  return shown.flatMap(([name, value = "", failed = false]) =>
    wrap(clean(value), width - indent).map((line, index) => {
      const label = (index === 0 ? name : "").padEnd(indent)
      return `${label.trim() === "" ? label : dim(label)}${failed ? red(line) : line}`
    })
  )
}

/**
 * The lines of an explanation.
 *
 * @param width the most characters of a line; words that are longer are cut, 120 is the most
 */
export const make = (explanation: Explanation, width: number, paint: Paint): string => {
  const room = Math.min(width, widest)
  const { id, model, operation, tenant } = explanation
  const steps = stepsOf(explanation)
  const team = typeof tenant === "string" ? ` for team ${tenant}` : ""
  const [firstLimit, ...otherLimits] = limitsOf(explanation)
  return [
    ...factsOf(
      [
        ["call", id],
        ["asked", `${operation}${typeof model === "string" ? ` of ${model}` : ""}${team}`],
        ["outcome", outcomeOf(explanation), Boolean(explanation.failure)]
      ],
      room,
      paint
    ),
    "",
    ...(steps.length === 0 ? ["nothing was sent to a provider"] : tableOf(steps, room, paint)),
    "",
    ...factsOf(
      [
        ["cache", cacheOf(explanation)],
        ["tokens", tokensOf(explanation)],
        ["price", priceOf(explanation)],
        ["cost", costOf(explanation)],
        ["limits", firstLimit],
        ...otherLimits.map((limit): Fact => ["", limit])
      ],
      room,
      paint
    )
  ]
    .map((line) => `${line}\n`)
    .join("")
}
