/**
 * Lines of the ledger's journal: one JSON array for each row, or for both of a call, whose first place tells what it is.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { Row } from "../LedgerStore.ts"

export interface Line {
  /** `held` stands only as long as no `row` with its key follows. */
  readonly kind: "held" | "row"
  readonly row: Row
}

/** `pair` is the row of an attempt and, by two more places, that of its call. */
const kinds = ["held", "row", "pair"] as const
type Kind = (typeof kinds)[number]

/** Places, not names: half of the bytes, and of the time. A new field goes to the end. */
const placesOf = (kind: Kind, row: Row) => {
  const { cost, tokens } = row
  return [
    kind,
    row.callId,
    row.number,
    row.tenant,
    row.provider,
    row.deployment,
    row.operation,
    row.model,
    row.requestId,
    row.stream,
    row.hedge,
    row.attempts,
    row.startedAt,
    row.answeredAt,
    row.endedAt,
    row.outcome,
    row.executed,
    tokens.input,
    tokens.cachedInput,
    tokens.cacheWrite,
    tokens.audioInput,
    tokens.embedding,
    tokens.output,
    tokens.reasoning,
    tokens.audioOutput,
    tokens.unattributed,
    row.audioMillis,
    row.exact,
    cost === "unpriced" ? null : cost.nanoDollars,
    cost === "unpriced" ? null : cost.snapshot,
    row.keyId,
    row.serviceTier,
    row.toolCalls,
    cost === "unpriced" ? 0 : (cost.toolNanoDollars ?? 0)
  ]
}

export const format = (kind: Line["kind"], row: Row): string => `${JSON.stringify(placesOf(kind, row))}\n`

/** The line of an attempt and its call, of which `Pairs.isPair` says that they go together. */
export const formatPair = (attempt: Row, call: Row): string => {
  const places = placesOf("pair", attempt)
  places.push(call.startedAt, call.endedAt)
  return `${JSON.stringify(places)}\n`
}

const Places = Schema.fromJsonString(Schema.Array(Schema.Unknown))
const Decoded = Schema.Struct({
  kind: Schema.Literals(kinds),
  row: Row,
  startedAt: Schema.Int,
  endedAt: Schema.Int
})

const decodePlaces = Schema.decodeUnknownOption(Places)
const decodeLine = Schema.decodeUnknownOption(Decoded)

const parseLine = (line: string): typeof Decoded.Type | undefined => {
  const places = Option.getOrUndefined(decodePlaces(line))
  if (places === undefined) return undefined
  const nanoDollars = places[28]
  return Option.getOrUndefined(
    decodeLine({
      kind: places[0],
      startedAt: places[34] ?? places[12],
      endedAt: places[35] ?? places[14],
      row: {
        callId: places[1],
        number: places[2],
        tenant: places[3],
        // A line of an earlier version ends before it, or before the last three.
        keyId: places[30] ?? "",
        provider: places[4],
        deployment: places[5],
        operation: places[6],
        model: places[7],
        requestId: places[8],
        stream: places[9],
        hedge: places[10],
        attempts: places[11],
        startedAt: places[12],
        answeredAt: places[13],
        endedAt: places[14],
        outcome: places[15],
        executed: places[16],
        tokens: {
          input: places[17],
          cachedInput: places[18],
          cacheWrite: places[19],
          audioInput: places[20],
          embedding: places[21],
          output: places[22],
          reasoning: places[23],
          audioOutput: places[24],
          unattributed: places[25]
        },
        toolCalls: places[32] ?? 0,
        serviceTier: places[31] ?? null,
        audioMillis: places[26],
        exact: places[27],
        cost:
          nanoDollars === null
            ? "unpriced"
            : { nanoDollars, ...(places[33] ? { toolNanoDollars: places[33] } : {}), snapshot: places[29] }
      }
    })
  )
}

/** The lines of a file. What stands after the last line break was cut off by the end of a process. */
export const parse = (text: string): { readonly lines: ReadonlyArray<Line>; readonly damaged: number } => {
  const lines: Array<Line> = []
  let damaged = 0
  for (const part of text.slice(0, text.lastIndexOf("\n") + 1).split("\n")) {
    if (part === "") continue
    const line = parseLine(part)
    if (line === undefined) {
      damaged++
      continue
    }
    const { endedAt, kind, row, startedAt } = line
    lines.push({ kind: kind === "held" ? kind : "row", row })
    if (kind === "pair") lines.push({ kind: "row", row: { ...row, number: 0, startedAt, endedAt } })
  }
  return { lines, damaged }
}
