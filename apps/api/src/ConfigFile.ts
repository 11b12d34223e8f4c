/**
 * `llm.config.yaml` (or `.json`, or `.ts`): its shape, and where exactly it is wrong.
 *
 * Secrets never stand in it: it names the variable or the file that holds them.
 */
import { Router } from "@llm/core"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as Yaml from "yaml"

// ---------------------------------------------------------------------------
// Values
// ---------------------------------------------------------------------------

const Time = Schema.DurationFromString.annotate({ description: 'Such as "500 millis" or "30 seconds"' })
const Size = Schema.ByteSizeFromString.annotate({ description: 'Such as "32 MiB"' })
const Name = Schema.NonEmptyString
const Whole = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
const Positive = Schema.Finite.check(Schema.isGreaterThan(0))
const Share = Schema.Finite.check(Schema.isGreaterThan(0), Schema.isLessThanOrEqualTo(1))
const Url = Schema.String.check(
  Schema.makeFilter((text) => /^https?:\/\/\S+$/u.test(text) && URL.canParse(text), {
    message: "expected a URL that starts with http:// or https://"
  })
)
const Pattern = Schema.NonEmptyString.check(
  Schema.makeFilter(
    (text) => {
      try {
        return new RegExp(text, "u").source !== ""
      } catch {
        return false
      }
    },
    { message: "expected a regular expression, such as CUSTOMER-\\d+" }
  )
)
const Dollars = Schema.Union([
  Schema.Finite.check(Schema.isGreaterThan(0)),
  Schema.String.check(Schema.isPattern(/^\d{1,7}(?:\.\d{1,12})?$/u))
]).annotate({ description: 'Dollars, such as 20 or "0.05"' })

/** Where a secret is: never here. */
export const Secret = Schema.Union([
  Schema.Struct({ env: Name.annotate({ description: "The variable that holds it" }) }),
  Schema.Struct({ file: Name.annotate({ description: "The file that holds it, and nothing else" }) })
])
export type Secret = typeof Secret.Type

const optional = <S extends Schema.Top>(schema: S) => Schema.optional(schema)

const dimensions = ["tenant", "key", "provider", "deployment", "operation", "model"] as const
const Per = Schema.Array(Schema.Literals(dimensions))
const Match = Schema.Struct({
  tenant: optional(Schema.Array(Name)),
  key: optional(Schema.Array(Name)),
  deployment: optional(Schema.Array(Name)),
  model: optional(Schema.Array(Name))
})

// ---------------------------------------------------------------------------
// Parts
// ---------------------------------------------------------------------------

/** A key at an endpoint. */
export const Deployment = Schema.Struct({
  /** Also a header's value: `x-llm-deployment`. */
  name: Schema.String.check(Schema.isPattern(/^[\x21-\x7e]+$/u)),
  /** What errors, prices and metrics call it; `openai` unless told. `simulator` needs no key. */
  provider: optional(Name),
  baseUrl: optional(Url),
  apiKey: optional(Secret),
  organization: optional(Name),
  project: optional(Name),
  /** What callers ask for → what is sent; all models as they are unless told. */
  models: optional(Schema.Record(Name, Name)),
  weight: optional(Positive),
  /** For the strategy `cheapest`. */
  price: optional(Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))),
  requestsPerMinute: optional(Positive),
  tokensPerMinute: optional(Positive),
  concurrency: optional(Schema.Int.check(Schema.isGreaterThan(0))),
  /** How it goes on from a text, for `rescue`. */
  continues: optional(Schema.Literals(["prefill", "trailing", "instruction", "restart"]))
})
export type Deployment = typeof Deployment.Type

const AtLeastSecond = Time.check(
  Schema.makeFilter((time) => Duration.isGreaterThanOrEqualTo(time, Duration.seconds(1)), {
    message: 'expected 1 second or more, such as "30 minutes"'
  })
)

/** Files in PEM, read again when they change. */
const Tls = Schema.Struct({ cert: Name, key: Name, passphrase: optional(Secret) })

const Server = Schema.Struct({
  host: optional(Name),
  port: optional(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65_535 }))),
  /** Several gateways of one machine on one port, each with a journal and an admin port of its own. Linux and BSD. */
  reusePort: optional(Schema.Boolean),
  bodyLimit: optional(Size),
  /** How long running streams may go on after a signal. */
  drain: optional(Time),
  /** How long Realtime sessions may last: without a message (30 minutes unless told), and in all (60 minutes). */
  realtime: optional(Schema.Struct({ idle: optional(AtLeastSecond), total: optional(AtLeastSecond) })),
  /** Speaks HTTPS. */
  tls: optional(Tls),
  /** Origins whose pages may call; none unless told. */
  cors: optional(Schema.Array(Url)),
  /**
   * Names by which those who have no key may call, beside addresses and private ones (DNS rebinding): `.example.com`
   * stands for that name and all below it, `*` for any.
   */
  hosts: optional(Schema.Array(Schema.String.check(Schema.isPattern(/^(?:\*|\.?[\w-]+(?:\.[\w-]+)*)$/u)))),
  /** Paths under /v1 that are passed on beside the known ones: `*` at the end stands for anything. */
  passthrough: optional(Schema.Array(Schema.String.check(Schema.isPattern(/^\/v1\/[\w./*-]+$/u))))
})

const Admin = Schema.Struct({
  host: optional(Name),
  /** A port of its own; 8081 unless told. */
  port: optional(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 65_535 }))),
  token: Secret,
  /** Speaks HTTPS: `true` with the certificate of `server.tls`, or with files of its own. */
  tls: optional(Schema.Union([Schema.Boolean, Tls]))
})

const Routing = Schema.Struct({
  strategy: optional(Router.Strategy),
  fallbacks: optional(Schema.Record(Name, Schema.Record(Name, Name))),
  failover: optional(Schema.Array(Name)),
  /** Where files, vector stores, batches and conversations are kept; the first deployment unless told. */
  home: optional(Name)
})

const Limit = Schema.Struct({
  name: Name,
  requestsPerMinute: optional(Positive),
  tokensPerMinute: optional(Positive),
  /** Each of these has the limit for itself; one for all unless told. */
  per: optional(Per),
  maxWait: optional(Time)
})

const second = Duration.seconds(1)
const year = Duration.days(366)

/** Any span of that length, instead of one by the calendar. */
const Rolling = Time.check(
  Schema.makeFilter((length) => Duration.between(length, { minimum: second, maximum: year }), {
    message: 'expected 1 second to 366 days, such as "24 hours"'
  })
)

const Budget = Schema.Struct({
  name: Name,
  dollars: optional(Dollars),
  tokens: optional(Whole),
  window: Schema.Union([
    Schema.Literals(["minute", "hour", "day", "month", "total"]),
    Schema.Struct({ rolling: Rolling })
  ]),
  per: optional(Per),
  match: optional(Match),
  warnAt: optional(Share)
})

const hour = Duration.hours(1)

const Ledger = Schema.Struct({
  /** Older rows are deleted, but none of the current month; all stay unless told. */
  keep: Time.check(
    Schema.makeFilter((keep) => Duration.isGreaterThanOrEqualTo(keep, hour), {
      message: 'expected 1 hour or more, such as "90 days"'
    })
  )
})

const Retries = Schema.Struct({
  times: optional(Whole),
  base: optional(Time),
  cap: optional(Time),
  maxHint: optional(Time)
})

const Timeouts = Schema.Struct({
  connect: optional(Time),
  firstEvent: optional(Time),
  idle: optional(Time),
  total: optional(Time)
})

const Hedging = Schema.Struct({
  delay: optional(Time),
  percentile: optional(Share),
  atLeast: optional(Time),
  extra: optional(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 4 })))
})

const Cache = Schema.Struct({
  /** `redis` shares replies with other gateways; the section `redis` says where. */
  kind: Schema.Literals(["none", "single-flight", "memory", "redis"]),
  ttl: optional(Time),
  entries: optional(Schema.Int.check(Schema.isGreaterThan(0))),
  bytes: optional(Size)
})

const Redis = Schema.Struct({
  url: Secret.annotate({ description: "Where its URL is: redis://… or rediss://…" }),
  /** Before every key; `llm:` unless told. */
  prefix: optional(Name),
  /** How long it may take to answer; 500 ms unless told. */
  timeout: optional(Time),
  /** While it does not answer limits are each gateway's own (`local`), off (`open`), or let nothing pass (`closed`). */
  onFailure: optional(Schema.Literals(["local", "open", "closed"]))
})

const Otlp = Schema.Struct({
  /** The collector's base URL: `/v1/traces`, `/v1/metrics` and `/v1/logs` come after it. */
  endpoint: Url,
  headers: optional(Schema.Record(Name, Secret)),
  serviceName: optional(Name),
  resource: optional(Schema.Record(Name, Schema.String)),
  protocol: optional(Schema.Literals(["http/protobuf", "http/json"])),
  interval: optional(Time)
})

/** Prompts and replies in what is exported, redacted; none unless told. */
const Content = Schema.Struct({
  mode: Schema.Literals(["no_content", "span_only", "event_only", "span_and_event"]),
  /** Bytes of an attribute; 16,384 unless told. */
  limit: optional(Schema.Int.check(Schema.isGreaterThan(0)))
})

const Clamp = Schema.Struct({
  maximum: optional(Schema.Finite),
  minimum: optional(Schema.Finite),
  default: optional(Schema.Finite),
  remove: optional(Schema.Boolean)
})

const Guards = Schema.Struct({
  models: optional(Schema.Array(Name)),
  /** Whether a form whose model nobody told may pass under `models`; not unless told. */
  unnamed: optional(Schema.Boolean),
  maxMessages: optional(Schema.Int.check(Schema.isGreaterThan(0))),
  maxTokens: optional(Schema.Int.check(Schema.isGreaterThan(0))),
  clamps: optional(Schema.Record(Name, Clamp)),
  redact: optional(Schema.Boolean)
})

/** Requests for embeddings that come together go out as one; each by itself where there is no `batch`. */
const Embeddings = Schema.Struct({
  batch: optional(
    Schema.Struct({
      /** How long a batch waits for more; 5 ms unless told. */
      window: optional(Time),
      /** The most texts of a batch; 2,048 unless told. */
      maxItems: optional(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 2048 }))),
      /** The most tokens of a batch, estimated; 300,000 unless told. */
      maxTokens: optional(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 300_000 })))
    })
  )
})

/** Other settings for some calls. In names `*` stands for anything. */
const Override = Schema.Struct({
  name: Name,
  /** What callers ask for. */
  models: optional(Schema.NonEmptyArray(Name)),
  keys: optional(Schema.NonEmptyArray(Name)),
  teams: optional(Schema.NonEmptyArray(Name)),
  /** Such as `embeddings.*`. */
  operations: optional(Schema.NonEmptyArray(Name)),
  retries: optional(Retries),
  timeouts: optional(Timeouts),
  hedging: optional(Hedging),
  cache: optional(Cache),
  embeddings: optional(Embeddings),
  guards: optional(Guards)
})
export type Override = typeof Override.Type

/** The whole file. */
export const ConfigFile = Schema.Struct({
  $schema: optional(Schema.String),
  server: optional(Server),
  admin: optional(Admin),
  deployments: optional(Schema.NonEmptyArray(Deployment)),
  routing: optional(Routing),
  retries: optional(Retries),
  retryBudget: optional(
    Schema.Struct({
      capacity: optional(Positive),
      perCall: optional(Schema.Finite),
      perSecond: optional(Schema.Finite)
    })
  ),
  timeouts: optional(Timeouts),
  breaker: optional(
    Schema.Struct({
      kind: optional(Schema.Literals(["consecutive", "rate", "none"])),
      failures: optional(Schema.Int.check(Schema.isGreaterThan(0))),
      openFor: optional(Time)
    })
  ),
  hedging: optional(Hedging),
  cache: optional(Cache),
  embeddings: optional(Embeddings),
  rescue: optional(
    Schema.Struct({
      strategy: Schema.Literals(["none", "restart", "continue"]),
      attempts: optional(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 5 })))
    })
  ),
  limits: optional(Schema.Array(Limit)),
  concurrency: optional(
    Schema.Struct({
      limit: Schema.Int.check(Schema.isGreaterThan(0)),
      queue: optional(Whole),
      maxWait: optional(Time)
    })
  ),
  budgets: optional(Schema.Array(Budget)),
  /** What becomes of calls without a known price under a budget in dollars. */
  unpriced: optional(Schema.Literals(["refuse", "allow"])),
  /** What becomes of calls under a budget while the database does not answer; `allow` unless told. */
  unavailable: optional(Schema.Literals(["refuse", "allow"])),
  guards: optional(Guards),
  /** Other settings for some models, keys, teams or operations: the first that fits a call counts. */
  overrides: optional(Schema.Array(Override)),
  /** Whether callers need a virtual key; they do once one was made, unless told. */
  keys: optional(
    Schema.Struct({
      required: optional(Schema.Boolean),
      /** How long keys in use go on while the database does not answer; 5 minutes unless told. */
      grace: optional(Time)
    })
  ),
  /** Where accounts, keys and budgets are kept. */
  database: optional(
    Schema.Union([
      Schema.Struct({ sqlite: Name.annotate({ description: "A file" }) }),
      Schema.Struct({ postgres: Secret.annotate({ description: "Where its URL is" }) })
    ])
  ),
  /** Limits, circuits and cached replies that several gateways share. */
  redis: optional(Redis),
  /** The folder of what is still to be written to the database. */
  journal: optional(Name),
  ledger: optional(Ledger),
  prices: optional(Schema.Struct({ file: Name })),
  telemetry: optional(
    Schema.Struct({
      /** A log line with the tokens of every call. */
      log: optional(Schema.Boolean),
      /** A log line for every request. */
      accessLog: optional(Schema.Boolean),
      /** Patterns that no log line may show. */
      redact: optional(Schema.Array(Pattern)),
      otlp: optional(Otlp),
      content: optional(Content)
    })
  )
}).annotate({ identifier: "llm.config", title: "Configuration of the llm gateway" })
export type ConfigFile = typeof ConfigFile.Type

/** What a module may export as its default. */
export type Input = typeof ConfigFile.Encoded

// ---------------------------------------------------------------------------
// Reading
// ---------------------------------------------------------------------------

/** One thing that is wrong. */
const Problem = Schema.Struct({
  /** Such as `deployments[1].baseUrl`. */
  field: Schema.String,
  /** 1 for the first; absent where the field is not in the text. */
  line: Schema.optional(Schema.Finite),
  column: Schema.optional(Schema.Finite),
  detail: Schema.String
})
type Problem = typeof Problem.Type

/** The file cannot be used; every place is named. */
export class ConfigFileInvalid extends Schema.TaggedError<ConfigFileInvalid>()("ConfigFileInvalid", {
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

const decode = Schema.decodeUnknownResult(ConfigFile, { onExcessProperty: "error", errors: "all" })
const formatIssue = SchemaIssue.makeFormatterStandardSchemaV1()

const fieldOf = (path: ReadonlyArray<PropertyKey>): string =>
  path
    .map((key, index) =>
      typeof key === "number" ? `[${key}]` : index === 0 ? String(key) : `.${String(key)}`
    )
    .join("")

/** The names that a mistyped one may have meant. */
const keyOf = (segment: PropertyKey | { readonly key: PropertyKey }): PropertyKey =>
  typeof segment === "object" ? segment.key : segment

type Path = ReadonlyArray<PropertyKey>

/** A line and a column of a text. */
type Place = Pick<Problem, "line" | "column">

const nowhere = (): Place => ({})

/**
 * Checks what a file says.
 *
 * @param json what was read, such as what a module exports
 * @param placeOf where a field, or the nearest one around it, stands
 * @returns fails with `ConfigFileInvalid`, which names every wrong field
 */
export const fromValue = (
  json: unknown,
  file: string,
  placeOf: (path: Path) => Place = nowhere
): Effect.Effect<ConfigFile, ConfigFileInvalid> =>
  Effect.suspend(() => {
    const decoded = decode(json)
    if (decoded._tag === "Success") return Effect.succeed(decoded.success)
    const problems = formatIssue(decoded.failure.issue).issues.map((issue): Problem => {
      const path = (issue.path ?? []).map(keyOf)
      return { field: fieldOf(path), ...placeOf(path), detail: issue.message.replaceAll(/\s+/gu, " ") }
    })
    return Effect.fail(new ConfigFileInvalid({ file, problems }))
  })

/**
 * Reads a configuration.
 *
 * @param text YAML or JSON
 * @param file its name, for the places
 * @returns fails with `ConfigFileInvalid`, which names every wrong place
 */
export const parse = (text: string, file: string): Effect.Effect<ConfigFile, ConfigFileInvalid> =>
  Effect.suspend(() => {
    const lines = new Yaml.LineCounter()
    const document = Yaml.parseDocument(text, { lineCounter: lines })
    const at = (offset: number | undefined) => {
      if (offset === undefined) return {}
      const { col, line } = lines.linePos(offset)
      return { line, column: col }
    }
    if (document.errors.length > 0) {
      const problems = document.errors.map((error) => ({
        field: "",
        ...at(error.pos[0]),
        detail: (error.message.split("\n")[0] ?? error.message).replace(/ at line \d+, column \d+:?$/u, "")
      }))
      return Effect.fail(new ConfigFileInvalid({ file, problems }))
    }
    const placeOf = (path: Path): Place => {
      for (let length = path.length; length > 0; length--) {
        const node: unknown = document.getIn(path.slice(0, length), true)
        if (Yaml.isNode(node) && node.range) return at(node.range[0])
      }
      return {}
    }
    return fromValue(document.toJS() ?? {}, file, placeOf)
  })

/** The JSON Schema of the file, for editors. */
export const jsonSchema = () => Schema.toJsonSchemaDocument(ConfigFile)
