/**
 * `oa admin`: keys, usage and status of a gateway, through its admin API.
 *
 * Only the flags are here; the client is loaded once they are parsed.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"

const json = Flag.Boolean("json").pipe(
  Flag.withDescription("The gateway's answer as JSON on stdout; failures as JSON on stderr"),
  Flag.withoutNegation,
  Flag.withDefault(false)
)

const text = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.optional)

const texts = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.atLeast(0))

const number = (name: string, description: string) =>
  Flag.Finite(name).pipe(Flag.withDescription(description), Flag.optional)

const keyId = Argument.String("key").pipe(Argument.withDescription("The key's name, key_…"))

const client = Effect.promise(() => import("../Admin.ts"))

const createKey = Command.make(
  "create",
  {
    team: Flag.String("team").pipe(Flag.withDescription("Whose key it is")),
    label: text("label", "text", "What it is for"),
    scopes: texts("scope", "scope", "inference (unless told), read-only or admin; may be given again"),
    models: texts("model", "pattern", "Such as gpt-6-*; may be given again; all models unless told"),
    operations: texts(
      "operation",
      "pattern",
      "Such as chat.*; may be given again; all operations unless told"
    ),
    requestsPerMinute: number("rpm", "Requests per minute"),
    tokensPerMinute: number("tpm", "Tokens per minute"),
    concurrency: number("concurrency", "Calls at once"),
    budget: text(
      "budget",
      "amount/window",
      "Dollars or tokens per day or month: 20/day, 1000000tokens/month"
    ),
    expires: text("expires", "when", "A date such as 2027-01-31, or a time from now such as 30d or 12h"),
    json
  },
  Effect.fnUntraced(function* ({
    budget,
    concurrency,
    expires,
    label,
    requestsPerMinute,
    tokensPerMinute,
    ...input
  }) {
    const Admin = yield* client
    return yield* Admin.createKey({
      ...input,
      label: Option.getOrUndefined(label),
      requestsPerMinute: Option.getOrUndefined(requestsPerMinute),
      tokensPerMinute: Option.getOrUndefined(tokensPerMinute),
      concurrency: Option.getOrUndefined(concurrency),
      budget: Option.getOrUndefined(budget),
      expires: Option.getOrUndefined(expires)
    })
  })
).pipe(Command.withDescription("Make a key. Its secret is printed on stdout, once."))

const listKeys = Command.make(
  "list",
  { team: text("team", "team", "Only this team's"), json },
  Effect.fnUntraced(function* ({ team }) {
    const Admin = yield* client
    return yield* Admin.listKeys(Option.getOrUndefined(team))
  })
).pipe(Command.withDescription("List keys."))

const rotateKey = Command.make(
  "rotate",
  {
    key: keyId,
    overlap: text("overlap", "duration", "How long the old secret stays valid (24h); 0s ends it at once"),
    json
  },
  Effect.fnUntraced(function* ({ key, overlap }) {
    const Admin = yield* client
    return yield* Admin.rotateKey(key, Option.getOrUndefined(overlap))
  })
).pipe(Command.withDescription("Give a key a new secret, printed on stdout, once."))

const revokeKey = Command.make(
  "revoke",
  { key: keyId, json },
  Effect.fnUntraced(function* ({ key }) {
    const Admin = yield* client
    return yield* Admin.revokeKey(key)
  })
).pipe(Command.withDescription("End a key, for good and within a second."))

const keys = Command.make("keys").pipe(
  Command.withDescription("Keys of the gateway."),
  Command.withSubcommands([createKey, listKeys, rotateKey, revokeKey])
)

const createTeam = Command.make(
  "create",
  {
    team: Argument.String("team").pipe(Argument.withDescription("Small letters, digits, dots and dashes")),
    name: text("name", "text", "What people call it"),
    budget: text("budget", "amount/window", "For all its keys together, as of a key"),
    json
  },
  Effect.fnUntraced(function* ({ budget, name, team }) {
    const Admin = yield* client
    return yield* Admin.createTeam(team, Option.getOrUndefined(name), Option.getOrUndefined(budget))
  })
).pipe(Command.withDescription("Make a team: keys belong to one."))

const listTeams = Command.make(
  "list",
  { json },
  Effect.fnUntraced(function* () {
    const Admin = yield* client
    return yield* Admin.listTeams
  })
).pipe(Command.withDescription("List teams."))

const teams = Command.make("teams").pipe(
  Command.withDescription("Teams of the gateway."),
  Command.withSubcommands([createTeam, listTeams])
)

const usage = Command.make(
  "usage",
  {
    by: text(
      "by",
      "names",
      "team, key, model, provider, deployment, operation, outcome, day or hour, with commas between (team,model)"
    ),
    from: text("from", "date", "Inclusive"),
    to: text("to", "date", "Exclusive"),
    team: text("team", "team", "Only this team's"),
    csv: Flag.Boolean("csv").pipe(
      Flag.withDescription("Every column, as CSV"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    json
  },
  Effect.fnUntraced(function* ({ by, csv, from, team, to }) {
    const Admin = yield* client
    return yield* Admin.usage({
      by: Option.getOrElse(by, () => "team,model"),
      from: Option.getOrUndefined(from),
      to: Option.getOrUndefined(to),
      team: Option.getOrUndefined(team),
      csv
    })
  })
).pipe(Command.withDescription("What was used, and what it cost."))

const status = Command.make(
  "status",
  { json },
  Effect.fnUntraced(function* () {
    const Admin = yield* client
    return yield* Admin.status
  })
).pipe(Command.withDescription("Circuits, limits, queues and budgets as they stand."))

/** The command. */
export const admin = Command.make("admin").pipe(
  Command.withDescription("Keys, usage and status of a gateway (LLM_ADMIN_URL, LLM_ADMIN_TOKEN)."),
  Command.withExamples([
    { command: "oa admin teams create search" },
    { command: 'oa admin keys create --team search --model "gpt-6-*" --rpm 600 --budget 20/day' },
    { command: "oa admin keys rotate key_k3v9x2ab4c5d --overlap 24h" },
    { command: "oa admin usage --by team,model,day --csv > usage.csv" },
    { command: "oa admin status" }
  ]),
  Command.withSubcommands([keys, teams, usage, status])
)
