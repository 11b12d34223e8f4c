/**
 * Virtual keys and the teams that they belong to: what callers of the gateway come with instead of the provider's
 * own keys. A key's name (`key_…`) is public; its secret (`sk-llm-…`) is shown once and kept as a hash.
 */
import { hash, randomBytes } from "node:crypto"
import * as Schema from "effect/Schema"

// ---------------------------------------------------------------------------
// Settings
// ---------------------------------------------------------------------------

/**
 * What a key may be used for: `inference` for `/v1`, `read-only` to look at what the admin API shows, `admin` to
 * change it too.
 */
export const Scope = Schema.Literals(["inference", "read-only", "admin"])
export type Scope = typeof Scope.Type

const Positive = Schema.Finite.check(Schema.isBetween({ minimum: 1, maximum: 1e12 }))
const Whole = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1e15 }))
const Text = Schema.String.check(Schema.isPattern(/^[^\p{Cc}]{1,200}$/u))

/** Letters of names, and `*` for any number of any characters. */
const Pattern = Schema.String.check(Schema.isPattern(/^[\w.:/@*+-]{1,200}$/u))
const Patterns = Schema.Array(Pattern).check(Schema.isMaxLength(1000))

/** By the calendar in UTC; in dollars, in tokens, or in both. */
export const Budget = Schema.Struct({
  dollars: Schema.optional(
    Schema.Union([
      Schema.Finite.check(Schema.isGreaterThan(0), Schema.isLessThanOrEqualTo(1_000_000)),
      Schema.String.check(Schema.isPattern(/^(?!0+(?:\.0+)?$)\d{1,6}(?:\.\d{1,12})?$/u))
    ])
  ),
  tokens: Schema.optional(Whole),
  window: Schema.Literals(["day", "month"])
}).check(
  Schema.makeFilter(({ dollars, tokens }) => dollars !== undefined || tokens !== undefined, {
    message: "expected dollars or tokens"
  })
)
export type Budget = typeof Budget.Type

const Time = Schema.DateTimeUtcFromString

/** What the holder of a key may do, and how much of it. */
export const Settings = Schema.Struct({
  team: Schema.String,
  label: Schema.optional(Text),
  /** `inference` unless told. */
  scopes: Schema.optional(Schema.NonEmptyArray(Scope)),
  /** Patterns such as `gpt-6-*`; all models unless told. */
  models: Schema.optional(Patterns),
  /** Patterns such as `chat.*`; all operations unless told. */
  operations: Schema.optional(Patterns),
  requestsPerMinute: Schema.optional(Positive),
  tokensPerMinute: Schema.optional(Positive),
  /** Calls at once, a stream until its end. */
  concurrency: Schema.optional(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 }))),
  budget: Schema.optional(Budget),
  expiresAt: Schema.optional(Time),
  disabled: Schema.optional(Schema.Boolean)
})
export type Settings = typeof Settings.Type

/** A team is a tenant: its name here is what calls, budgets and the ledger know as `tenant`. */
export const TeamId = Schema.String.check(Schema.isPattern(/^[a-z0-9][a-z0-9._-]{0,62}$/u))

export const TeamSettings = Schema.Struct({
  name: Schema.optional(Text),
  /** For all its keys together. */
  budget: Schema.optional(Budget),
  /** None of its keys is accepted. */
  disabled: Schema.optional(Schema.Boolean)
})
export type TeamSettings = typeof TeamSettings.Type

// ---------------------------------------------------------------------------
// Records
// ---------------------------------------------------------------------------

/** One secret of a key; after a rotation there are two for a while. */
export const Secret = Schema.Struct({
  /** The last four characters. */
  hint: Schema.String,
  createdAt: Time,
  /** `null` for the present one. */
  validUntil: Schema.NullOr(Time)
})
export type Secret = typeof Secret.Type

export const Key = Schema.Struct({
  id: Schema.String,
  ...Settings.fields,
  createdAt: Time,
  /** To the minute. */
  lastUsedAt: Schema.NullOr(Time),
  revokedAt: Schema.NullOr(Time)
})
export type Key = typeof Key.Type

export const Team = Schema.Struct({ id: Schema.String, ...TeamSettings.fields, createdAt: Time })
export type Team = typeof Team.Type

// ---------------------------------------------------------------------------
// Secrets
// ---------------------------------------------------------------------------

const letters = "abcdefghijkmnpqrstuvwxyz23456789"

/** A name for a key. Short enough that no redaction takes it for a secret. */
export const newId = (): string =>
  `key_${Array.from(randomBytes(12), (byte) => letters.charAt(byte % letters.length)).join("")}`

/** A secret of 256 random bits. */
export const newSecret = (): string => `sk-llm-${randomBytes(32).toString("base64url")}`

const shape = /^sk-llm-[\w-]{43}$/u

/** Whether a text may be a secret of ours: others need no look into the database. */
export const isSecret = (text: string): boolean => shape.test(text)

/** What is kept of a secret. No salt: 256 random bits are in no table. */
export const hashOf = (secret: string): string => hash("sha256", secret, "base64url")

/** What people recognise a secret by. */
export const hintOf = (secret: string): string => secret.slice(-4)
