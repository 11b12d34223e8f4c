/**
 * A thin client of a gateway's admin API.
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import { AdminFailed, UsageError } from "./Failure.ts"
import * as Screen from "./Screen.ts"
import * as Settings from "./Settings.ts"

// ---------------------------------------------------------------------------
// Exchange
// ---------------------------------------------------------------------------

const patience = Duration.seconds(30)

const gateway = Effect.gen(function* () {
  const url = yield* Settings.read(Config.option(Config.String("LLM_ADMIN_URL")))
  const token = yield* Settings.read(Config.option(Config.Redacted("LLM_ADMIN_TOKEN")))
  const base = Option.getOrElse(url, () => "").replace(/\/+$/u, "")
  if (!/^https?:\/\//u.test(base) || !URL.canParse(base)) {
    return yield* new UsageError({
      message: base === "" ? "LLM_ADMIN_URL is not set" : "LLM_ADMIN_URL is no URL",
      hint: "set it to the gateway's admin listener, such as http://127.0.0.1:8081"
    })
  }
  if (Option.isNone(token) || Redacted.value(token.value) === "") {
    return yield* new UsageError({
      message: "LLM_ADMIN_TOKEN is not set",
      hint: "set it to the gateway's admin token, or to a key with the scope admin"
    })
  }
  return { base, token: token.value }
})

const Refusal = Schema.fromJsonString(
  Schema.Struct({
    error: Schema.Struct({ message: Schema.String, hint: Schema.optional(Schema.String) })
  })
)
const decodeRefusal = Schema.decodeUnknownOption(Refusal)

type Query = Readonly<Record<string, string | undefined>>

/** Gives the text of an answer; fails with what the gateway says, or with why nothing came. */
const send = Effect.fnUntraced(function* (
  method: "GET" | "POST" | "DELETE",
  path: string,
  options: { readonly query?: Query; readonly body?: unknown } = {}
) {
  const { base, token } = yield* gateway
  const secret = Redacted.value(token)
  const query = Object.entries(options.query ?? {}).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, value] as const]
  )
  const bare = HttpClientRequest.make(method)(`${base}${path}`).pipe(
    HttpClientRequest.setUrlParams(query),
    HttpClientRequest.bearerToken(secret)
  )
  const request = options.body === undefined ? bare : HttpClientRequest.bodyJsonUnsafe(bare, options.body)
  const client = yield* HttpClient.HttpClient
  const { status, text } = yield* client.execute(request).pipe(
    Effect.flatMap((response) =>
      Effect.map(response.text, (body) => ({ status: response.status, text: body }))
    ),
    Effect.timeout(patience),
    Effect.mapError(
      () =>
        new AdminFailed({
          message: `the gateway at ${new URL(base).host} does not answer`,
          hint: "check LLM_ADMIN_URL, and that the gateway runs with an admin listener",
          exitCode: 6
        })
    )
  )
  if (status >= 200 && status < 300) return text
  const told = Option.getOrUndefined(decodeRefusal(text))?.error
  return yield* new AdminFailed({
    message: (told?.message ?? `the gateway answered ${status}`).replaceAll(secret, "…"),
    hint: told?.hint ?? "is LLM_ADMIN_URL the admin listener of a gateway?",
    exitCode: status === 401 || status === 403 ? 4 : 1
  })
}, Effect.provide(FetchHttpClient.layer))

/** What the gateway sends is decoded before it is shown. */
const decoded = <S extends Schema.ConstraintDecoder<unknown>>(schema: S) => {
  const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(schema))
  return (text: string): Effect.Effect<S["Type"], AdminFailed> =>
    Effect.mapError(
      decode(text),
      () =>
        new AdminFailed({
          message: "the gateway's answer cannot be read",
          hint: "is LLM_ADMIN_URL the admin listener of a gateway, and of this version?",
          exitCode: 1
        })
    )
}

/** The answer as it came, or what `render` makes of it. */
const show = <R>(
  text: string,
  render: (screen: Screen.Screen["Service"]) => Effect.Effect<void, AdminFailed, R>
) =>
  Effect.flatMap(Screen.Screen, (screen) =>
    screen.json ? screen.answer(`${text.trimEnd()}\n`) : render(screen)
  )

/** Columns as wide as their widest cell. */
const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join("  ")
          .trimEnd()}\n`
    )
    .join("")
}

// ---------------------------------------------------------------------------
// Keys and teams
// ---------------------------------------------------------------------------

const Key = Schema.Struct({
  id: Schema.String,
  team: Schema.String,
  label: Schema.optional(Schema.String),
  scopes: Schema.optional(Schema.Array(Schema.String)),
  disabled: Schema.optional(Schema.Boolean),
  expiresAt: Schema.optional(Schema.String),
  lastUsedAt: Schema.optional(Schema.NullOr(Schema.String)),
  revokedAt: Schema.optional(Schema.NullOr(Schema.String))
})
const decodeIssued = decoded(Schema.Struct({ id: Schema.String, secret: Schema.String }))
const decodeKey = decoded(Key)
const KeyPage = Schema.Struct({ data: Schema.Array(Key), next: Schema.NullOr(Schema.String) })
const decodeKeys = decoded(KeyPage)
const decodeTeams = decoded(
  Schema.Struct({
    data: Schema.Array(Schema.Struct({ id: Schema.String, name: Schema.optional(Schema.String) }))
  })
)

const parseBudget = (input: string) => {
  const [, amount = "", unit, window = ""] =
    /^\$?(\d+(?:\.\d+)?)(tokens)?\/(day|month)$/u.exec(input.replaceAll(/\s/gu, "")) ?? []
  if (amount === "") {
    return Effect.fail(
      new UsageError({
        message: `--budget: ${JSON.stringify(input)} is none`,
        hint: "such as 20/day, 12.50/month or 1000000tokens/month"
      })
    )
  }
  return Effect.succeed(unit === undefined ? { dollars: amount, window } : { tokens: Number(amount), window })
}

const units: Readonly<Record<string, number>> = { h: 3_600_000, d: 86_400_000 }

const parseExpiry = Effect.fnUntraced(function* (input: string) {
  const [, count, unit = ""] = /^(\d+)([hd])$/u.exec(input) ?? []
  const at =
    count === undefined
      ? Date.parse(input)
      : (yield* Clock.currentTimeMillis) + Number(count) * (units[unit] ?? 0)
  const time = Option.getOrUndefined(DateTime.make(at))
  if (time !== undefined) return DateTime.formatIso(time)
  return yield* new UsageError({
    message: `--expires: ${JSON.stringify(input)} is no time`,
    hint: "such as 2027-01-31, 30d or 12h"
  })
})

const optional = <A, B, E>(value: A | undefined, read: (value: A) => Effect.Effect<B, E>) =>
  value === undefined ? Effect.succeed(undefined) : read(value)

/** A list that was not given is no list. */
const listed = (values: ReadonlyArray<string>) => (values.length === 0 ? undefined : values)

/** The secret alone on stdout, for `KEY=$(oa admin keys create …)`. */
const showIssued = (text: string, what: string) =>
  show(text, (screen) =>
    Effect.flatMap(decodeIssued(text), ({ id, secret }) =>
      Effect.andThen(
        screen.note(`${id} ${what}; its secret is shown this once:`),
        screen.answer(`${secret}\n`)
      )
    )
  )

export const createKey = Effect.fnUntraced(function* (input: {
  readonly team: string
  readonly label: string | undefined
  readonly scopes: ReadonlyArray<string>
  readonly models: ReadonlyArray<string>
  readonly operations: ReadonlyArray<string>
  readonly requestsPerMinute: number | undefined
  readonly tokensPerMinute: number | undefined
  readonly concurrency: number | undefined
  readonly budget: string | undefined
  readonly expires: string | undefined
}) {
  const { team, label, requestsPerMinute, tokensPerMinute, concurrency } = input
  const body = {
    team,
    label,
    requestsPerMinute,
    tokensPerMinute,
    concurrency,
    scopes: listed(input.scopes),
    models: listed(input.models),
    operations: listed(input.operations),
    budget: yield* optional(input.budget, parseBudget),
    expiresAt: yield* optional(input.expires, parseExpiry)
  }
  return yield* showIssued(yield* send("POST", "/admin/keys", { body }), "is made")
})

const stateOf = (key: typeof Key.Type): string => {
  if (typeof key.revokedAt === "string") return "revoked"
  if (key.disabled === true) return "disabled"
  return key.expiresAt === undefined ? "valid" : `until ${key.expiresAt.slice(0, 10)}`
}

/** All pages. */
export const listKeys = Effect.fnUntraced(function* (team: string | undefined) {
  const screen = yield* Screen.Screen
  const found: Array<typeof Key.Type> = []
  let after: string | undefined
  do {
    const text = yield* send("GET", "/admin/keys", { query: { team, after, limit: "1000" } })
    const page = yield* decodeKeys(text)
    found.push(...page.data)
    after = page.next ?? undefined
  } while (after !== undefined)
  if (screen.json) return yield* screen.answer(`${JSON.stringify({ data: found })}\n`)
  const rows = found.map((key) => [
    key.id,
    key.team,
    stateOf(key),
    (key.scopes ?? ["inference"]).join(","),
    key.lastUsedAt?.slice(0, 16).replace("T", " ") ?? "never",
    key.label ?? ""
  ])
  return yield* screen.answer(table([["KEY", "TEAM", "STATE", "SCOPES", "LAST USED", "LABEL"], ...rows]))
})

const pathOf = (key: string) => `/admin/keys/${encodeURIComponent(key)}`

const overlapOf = (input: string) => {
  if (/^0\s*[a-z]*$/u.test(input)) return Effect.succeed("0 millis")
  const duration = Settings.parseDuration(input)
  if (duration !== undefined) return Effect.succeed(`${Math.ceil(Duration.toMillis(duration))} millis`)
  return Effect.fail(
    new UsageError({
      message: `--overlap: ${JSON.stringify(input)} is no duration`,
      hint: "such as 24h or 30m"
    })
  )
}

export const rotateKey = Effect.fnUntraced(function* (key: string, overlap: string | undefined) {
  const body = { overlap: yield* optional(overlap, overlapOf) }
  return yield* showIssued(yield* send("POST", `${pathOf(key)}/rotate`, { body }), "has a new secret")
})

export const revokeKey = Effect.fnUntraced(function* (key: string) {
  const text = yield* send("DELETE", pathOf(key))
  return yield* show(text, (screen) =>
    Effect.flatMap(decodeKey(text), ({ id }) => screen.answer(`${id} is revoked\n`))
  )
})

export const createTeam = Effect.fnUntraced(function* (
  id: string,
  name: string | undefined,
  budget: string | undefined
) {
  const body = { id, name, budget: yield* optional(budget, parseBudget) }
  const text = yield* send("POST", "/admin/teams", { body })
  return yield* show(text, (screen) => screen.answer(`${id} is made\n`))
})

export const listTeams = Effect.gen(function* () {
  const text = yield* send("GET", "/admin/teams")
  return yield* show(text, (screen) =>
    Effect.flatMap(decodeTeams(text), ({ data }) =>
      screen.answer(table([["TEAM", "NAME"], ...data.map(({ id, name }) => [id, name ?? ""])]))
    )
  )
})

// ---------------------------------------------------------------------------
// Usage and status
// ---------------------------------------------------------------------------

const decodeUsage = decoded(
  Schema.Struct({
    data: Schema.Array(Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Finite])))
  })
)

const shownMeasures = ["calls", "failedCalls", "totalTokens", "costUsd"]

export const usage = Effect.fnUntraced(function* (input: {
  readonly by: string
  readonly from: string | undefined
  readonly to: string | undefined
  readonly team: string | undefined
  readonly csv: boolean
}) {
  const { by, csv, from, team, to } = input
  const query = { by, from, to, team, format: csv ? "csv" : "json" }
  const text = yield* send("GET", "/admin/usage", { query })
  if (csv) return yield* Effect.flatMap(Screen.Screen, (screen) => screen.answer(text))
  return yield* show(text, (screen) =>
    Effect.flatMap(decodeUsage(text), ({ data }) => {
      const columns = [...by.split(",").filter((name) => name !== ""), ...shownMeasures]
      const rows = data.map((row) => columns.map((name) => String(row[name] ?? "")))
      return screen.answer(table([columns.map((name) => name.toUpperCase()), ...rows]))
    })
  )
})

const decodeStatus = decoded(
  Schema.Struct({
    keys: Schema.Struct({ available: Schema.Boolean }),
    ledgerBacklog: Schema.Finite,
    deployments: Schema.Array(
      Schema.Struct({
        deployment: Schema.String,
        model: Schema.NullOr(Schema.String),
        circuit: Schema.Struct({ state: Schema.String }),
        concurrency: Schema.Struct({ inFlight: Schema.Finite, waiting: Schema.Finite })
      })
    ),
    budgets: Schema.NullOr(
      Schema.Array(
        Schema.Struct({
          budget: Schema.String,
          unit: Schema.String,
          of: Schema.Record(Schema.String, Schema.String),
          limit: Schema.Finite,
          spent: Schema.Finite
        })
      )
    )
  })
)

export const status = Effect.gen(function* () {
  const text = yield* send("GET", "/admin/status")
  return yield* show(text, (screen) =>
    Effect.flatMap(decodeStatus(text), ({ budgets, deployments, keys, ledgerBacklog }) => {
      const calls = deployments.map(({ circuit, concurrency, deployment, model }) => [
        deployment,
        model ?? "*",
        circuit.state.toLowerCase(),
        String(concurrency.inFlight),
        String(concurrency.waiting)
      ])
      const money = (budgets ?? []).map(({ budget, limit, of, spent, unit }) => [
        budget,
        Object.values(of).join(" "),
        `${spent} of ${limit} ${unit}`
      ])
      return screen.answer(
        [
          `keys: ${keys.available ? "readable" : "the database does not answer"}\n`,
          `ledger: ${ledgerBacklog} rows to be written\n`,
          ...(budgets === null ? ["budgets: cannot be read\n"] : []),
          ...(calls.length === 0
            ? []
            : ["\n", table([["DEPLOYMENT", "MODEL", "CIRCUIT", "RUNNING", "WAITING"], ...calls])]),
          ...(money.length === 0 ? [] : ["\n", table([["BUDGET", "OF", "SPENT"], ...money])])
        ].join("")
      )
    })
  )
})
