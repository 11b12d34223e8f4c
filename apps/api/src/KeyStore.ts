/**
 * Virtual keys and teams in SQLite or PostgreSQL, with what is in use held in memory.
 *
 * **Details**
 *
 * A caller's secret is hashed and looked up by its hash, in memory first. Each change raises a version in the
 * database; every process asks for it (`poll`) and reads anew what was changed, so a revocation counts everywhere
 * within `poll` and the time of two short queries. What a request costs does not depend on how many keys there are.
 *
 * While the database does not answer, keys in memory go on for `grace`; of others nothing can be said, and
 * `KeysUnavailable` says so.
 *
 * **Gotchas**
 *
 * A secret is given out once, by `create` and `rotate`. The limits of a key (`keyOf`) are known from the moment it
 * was found, until `capacity` others were.
 */
import { timingSafeEqual } from "node:crypto"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import * as SqlClient from "effect/sql/SqlClient"
import { isSqlError, type SqlError } from "effect/sql/SqlError"
import { InvalidSetting } from "@llm/core"
import * as KeyTables from "./KeyTables.ts"
import * as SchemaProblem from "./SchemaProblem.ts"
import * as VirtualKey from "./VirtualKey.ts"

/** The database does not answer: nothing can be said of keys that are not in memory. */
export class KeysUnavailable extends Schema.TaggedError<KeysUnavailable>()("KeysUnavailable", {
  /** What the database said; for the log, not for callers. */
  cause: Schema.optional(Schema.Defect())
}) {
  override get message(): string {
    return "the key store cannot be reached"
  }
}

/** There is no such key or team. */
export class KeyUnknown extends Schema.TaggedError<KeyUnknown>()("KeyUnknown", {
  what: Schema.Literals(["key", "team"]),
  id: Schema.String
}) {
  override get message(): string {
    return `there is no ${this.what} ${JSON.stringify(this.id)}`
  }
}

/** What was asked for cannot be, as things stand. */
class KeyConflict extends Schema.TaggedError<KeyConflict>()("KeyConflict", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** A setting of a key or a team that cannot be. */
class KeyInvalid extends Schema.TaggedError<KeyInvalid>()("KeyInvalid", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** A key that a secret belongs to; the same object until something of it changes. */
export interface Found {
  readonly key: VirtualKey.Key
  readonly team: VirtualKey.Team
  /** When this secret ends, in milliseconds since the epoch. */
  readonly validUntil: number | undefined
}

/** A key with the one sight of its secret. */
export interface Issued {
  readonly key: VirtualKey.Key
  readonly secret: Redacted.Redacted
}

/** Where the store stands. */
export interface Status {
  readonly available: boolean
  /** Keys in memory still count: the database answers, or has not been away for longer than `grace`. */
  readonly usable: boolean
  /** The last change that this process has heard of. */
  readonly version: number
  readonly cached: number
}

/** The service. `by` names who makes a change, for the audit log. */
export class KeyStore extends Context.Service<
  KeyStore,
  {
    /** The key of a secret; `undefined` where there is none. */
    readonly find: (secret: string) => Effect.Effect<Found | undefined, KeysUnavailable>
    /**
     * What `find` would give without asking anybody; `undefined` where it would have to.
     *
     * @param connection what the secret came over: it is hashed once as long as it comes again and again
     */
    readonly held: (secret: string, connection?: object) => Found | undefined
    /** A key that was found before. */
    readonly keyOf: (id: string) => VirtualKey.Key | undefined
    readonly teamOf: (id: string) => VirtualKey.Team | undefined
    /** Remembers that a key was used now. */
    readonly touch: (id: string) => void
    /** Whether there was ever a key. */
    readonly hasKeys: () => boolean
    readonly status: () => Status

    readonly create: (by: string, settings: VirtualKey.Settings) => Effect.Effect<Issued, ChangeError>
    readonly show: (
      id: string
    ) => Effect.Effect<
      { readonly key: VirtualKey.Key; readonly secrets: ReadonlyArray<VirtualKey.Secret> },
      KeyUnknown | KeysUnavailable
    >
    /** In the order of their names. */
    readonly list: (page: {
      readonly team?: string | undefined
      /** A name: those after it. */
      readonly after?: string | undefined
      readonly limit: number
    }) => Effect.Effect<ReadonlyArray<VirtualKey.Key>, KeysUnavailable>
    /** Changes settings: those that are given, as JSON; `null` takes one away. */
    readonly update: (by: string, id: string, changes: Changes) => Effect.Effect<VirtualKey.Key, ChangeError>
    /** A new secret; the others end after `overlap`. */
    readonly rotate: (
      by: string,
      id: string,
      overlap: Duration.Duration
    ) => Effect.Effect<Issued, ChangeError>
    /** For good. A key that is revoked already stays as it is. */
    readonly revoke: (by: string, id: string) => Effect.Effect<VirtualKey.Key, ChangeError>

    readonly createTeam: (
      by: string,
      id: string,
      settings: VirtualKey.TeamSettings
    ) => Effect.Effect<VirtualKey.Team, ChangeError>
    readonly showTeam: (id: string) => Effect.Effect<VirtualKey.Team, KeyUnknown | KeysUnavailable>
    readonly teams: Effect.Effect<ReadonlyArray<VirtualKey.Team>, KeysUnavailable>
    readonly updateTeam: (
      by: string,
      id: string,
      changes: Changes
    ) => Effect.Effect<VirtualKey.Team, ChangeError>

    /** What was changed, the latest first. */
    readonly audit: (page: {
      readonly subject?: string | undefined
      /** A `seq`: those before it. */
      readonly before?: number | undefined
      readonly limit: number
    }) => Effect.Effect<ReadonlyArray<KeyTables.AuditEntry>, KeysUnavailable>
  }
>()("@llm/api/KeyStore") {}

export type ChangeError = KeyUnknown | KeyConflict | KeyInvalid | KeysUnavailable

export type Changes = Readonly<Record<string, unknown>>

/** Not the database's. */
const isOwn = <E>(error: E): error is Exclude<E, SqlError> => !isSqlError(error)

/** How the store is asked. */
export interface Options {
  /** How often each process looks for changes of others; 250 ms unless told, 500 ms at most. */
  readonly poll?: Duration.Input | undefined
  /** How long keys in memory go on while the database does not answer; 5 minutes unless told, 0 for not at all. */
  readonly grace?: Duration.Input | undefined
  /** How long one question may take; 2 seconds unless told. */
  readonly timeout?: Duration.Input | undefined
  /** Secrets that are held in memory; 100,000 unless told. */
  readonly capacity?: number | undefined
}

const owner = "KeyStore.layer"

const rules: Readonly<Record<keyof Options, InvalidSetting.Rule>> = {
  poll: InvalidSetting.judgedLater,
  grace: InvalidSetting.judgedLater,
  timeout: InvalidSetting.judgedLater,
  capacity: InvalidSetting.whole(1, 10_000_000)
}

/** Longest questions at once for secrets that are not in memory: who guesses must not fill the pool. */
const lookups = 8

/** Secrets of which it is known that they are none. */
const unknownCapacity = 10_000

const minute = 60_000
const touchInterval = Duration.seconds(5)

const decodeKey = Schema.decodeUnknownEffect(VirtualKey.Settings, { onExcessProperty: "error" })
const encodeKey = Schema.encodeSync(VirtualKey.Settings)
const decodeTeam = Schema.decodeUnknownEffect(VirtualKey.TeamSettings, { onExcessProperty: "error" })
const encodeTeam = Schema.encodeSync(VirtualKey.TeamSettings)

const invalid = (error: Schema.SchemaError) => new KeyInvalid({ detail: SchemaProblem.of(error).detail })

/** Only what is there afterwards. */
const merged = (before: object, changes: Changes): object =>
  Object.fromEntries(Object.entries({ ...before, ...changes }).filter(([, value]) => value !== null))

const sameHash = (left: string, right: string): boolean =>
  left.length === right.length && timingSafeEqual(Buffer.from(left), Buffer.from(right))

/** What is in use, the longest unused first to go. */
class Cache {
  private readonly capacity: number
  private readonly secrets = new Map<string, { readonly stored: KeyTables.StoredSecret; found: Found }>()
  private readonly keys = new Map<string, { key: VirtualKey.Key; readonly hashes: Set<string> }>()
  /** Keys without a secret in memory, whose calls may still run. */
  private readonly idle = new Set<string>()
  readonly teams = new Map<string, VirtualKey.Team>()

  constructor(capacity: number) {
    this.capacity = capacity
  }

  get size(): number {
    return this.secrets.size
  }

  get(hash: string): Found | undefined {
    const entry = this.secrets.get(hash)
    if (entry === undefined || !sameHash(entry.stored.hash, hash)) return undefined
    // The order of insertion is the order of use; it matters only once there is no more room.
    if (this.secrets.size * 2 > this.capacity) {
      this.secrets.delete(hash)
      this.secrets.set(hash, entry)
    }
    return entry.found
  }

  keyOf(id: string): VirtualKey.Key | undefined {
    return this.keys.get(id)?.key
  }

  add(key: VirtualKey.Key, team: VirtualKey.Team, stored: KeyTables.StoredSecret): Found {
    const found: Found = { key, team, validUntil: stored.validUntil }
    this.secrets.set(stored.hash, { stored, found })
    const known = this.keys.get(key.id)
    if (known === undefined) this.keys.set(key.id, { key, hashes: new Set([stored.hash]) })
    else {
      known.key = key
      known.hashes.add(stored.hash)
    }
    for (const [oldest, { found: old }] of this.secrets) {
      if (this.secrets.size <= this.capacity) break
      this.secrets.delete(oldest)
      const entry = this.keys.get(old.key.id)
      entry?.hashes.delete(oldest)
      if (entry?.hashes.size === 0) this.keys.delete(old.key.id)
    }
    return found
  }

  /** A key that changed: its limits count at once, its secrets are asked for again. */
  change(key: VirtualKey.Key): void {
    const entry = this.keys.get(key.id)
    if (entry === undefined) return
    entry.key = key
    for (const hash of entry.hashes) this.secrets.delete(hash)
    entry.hashes.clear()
    this.idle.add(key.id)
    if (this.idle.size <= this.capacity) return
    for (const id of this.idle) {
      this.idle.delete(id)
      if (this.keys.get(id)?.hashes.size === 0) this.keys.delete(id)
      if (this.idle.size <= this.capacity) break
    }
  }

  clear(): void {
    this.secrets.clear()
    this.keys.clear()
    this.idle.clear()
    this.teams.clear()
  }

  changeTeam(team: VirtualKey.Team): void {
    this.teams.set(team.id, team)
    for (const entry of this.secrets.values()) {
      if (entry.found.key.team === team.id) entry.found = { ...entry.found, team }
    }
  }
}

const make = Effect.fnUntraced(function* (options: Options) {
  yield* InvalidSetting.check(owner, options, rules)
  const poll = yield* InvalidSetting.millis(owner, "poll", options.poll ?? "250 millis", 10, 500)
  const grace = yield* InvalidSetting.millis(owner, "grace", options.grace ?? "5 minutes")
  const patience = yield* InvalidSetting.millis(owner, "timeout", options.timeout ?? "2 seconds", 1, minute)
  const sql = yield* SqlClient.SqlClient
  yield* KeyTables.migrate.pipe(
    // Two processes may start at once.
    Effect.retry({ times: 4, schedule: Schedule.jittered(Schedule.exponential("50 millis")) }),
    Effect.mapError((cause) => new KeysUnavailable({ cause }))
  )
  const tables = KeyTables.make(sql)
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()

  const cache = new Cache(options.capacity ?? 100_000)
  const unknown = new Set<string>()
  const looking = Semaphore.makeUnsafe(lookups)
  const refreshing = Semaphore.makeUnsafe(1)
  let seen = -1
  /** Rises when a change is heard of: what was read before may be out of date. */
  let epoch = 0
  let available = true
  let confirmedAt = now()
  let hasKeys = false

  const isUsable = () => available || now() - confirmedAt <= grace

  /** Nobody waits longer than `timeout` for the database. */
  const ask = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, Exclude<E, SqlError> | KeysUnavailable> =>
    effect.pipe(
      Effect.timeoutOrElse({
        duration: Duration.millis(patience),
        orElse: () => Effect.fail(new KeysUnavailable({ cause: `no answer within ${patience} ms` }))
      }),
      Effect.mapError((error) => (isOwn(error) ? error : new KeysUnavailable({ cause: error }))),
      // Such as a row that a newer version wrote: the looks for changes must go on.
      Effect.catchDefect((cause) => Effect.fail(new KeysUnavailable({ cause })))
    )

  // -------------------------------------------------------------------------
  // Hearing of changes
  // -------------------------------------------------------------------------

  const load = Effect.gen(function* () {
    const startedAt = now()
    const version = yield* tables.version
    if (version !== seen) {
      epoch++
      unknown.clear()
      const isFirst = seen === -1
      // A database that came back from a backup.
      const isOther = version < seen
      const teams = yield* tables.changedTeams(isOther ? -1 : seen)
      const keys = isFirst || isOther ? [] : yield* tables.changedKeys(seen)
      if (isOther) cache.clear()
      hasKeys ||= yield* tables.hasKeys
      for (const team of teams) cache.changeTeam(team)
      for (const key of keys) cache.change(key)
      seen = version
    }
    confirmedAt = startedAt
  })

  const refresh = refreshing.withPermit(ask(load))

  const heartbeat = Effect.matchEffect(refresh, {
    onSuccess: () => {
      if (available) return Effect.void
      available = true
      return Effect.logInfo("Keys: the database is back")
    },
    onFailure: (error) => {
      if (!available) return Effect.void
      available = false
      return Effect.logWarning(`Keys: ${error.message}; those in memory go on for ${grace} ms`, error.cause)
    }
  })

  yield* refresh
  yield* Effect.forkScoped(Effect.forever(Effect.delay(heartbeat, Duration.millis(poll))))

  // -------------------------------------------------------------------------
  // Finding keys
  // -------------------------------------------------------------------------

  const lookUp = (hash: string): Effect.Effect<Found | undefined, KeysUnavailable> =>
    Effect.suspend(() => {
      // Someone else may have asked meanwhile.
      const cached = cache.get(hash)
      if (cached !== undefined) return Effect.succeed(cached)
      const before = epoch
      return Effect.flatMap(ask(tables.find(hash)), (row) => {
        if (before !== epoch) return lookUp(hash)
        if (row === undefined) {
          if (unknown.size >= unknownCapacity) unknown.clear()
          unknown.add(hash)
          return Effect.succeed(undefined)
        }
        const team = cache.teams.get(row.key.team)
        if (team !== undefined) return Effect.succeed(cache.add(row.key, team, row.secret))
        // A team that another process made a moment ago.
        return Effect.flatMap(ask(tables.team(row.key.team)), (made) => {
          if (made === undefined) return Effect.fail(new KeysUnavailable({ cause: "a key without its team" }))
          if (before === epoch) cache.changeTeam(made)
          return lookUp(hash)
        })
      })
    })

  /** The last secret of each connection that is open. */
  const lastOf = new WeakMap<object, { readonly secret: string; readonly hash: string }>()

  const held = (secret: string, connection?: object): Found | undefined => {
    if (!isUsable()) return undefined
    const last = connection === undefined ? undefined : lastOf.get(connection)
    // Whoever has the connection compares with what it sent itself.
    if (last?.secret === secret) return cache.get(last.hash)
    if (!VirtualKey.isSecret(secret)) return undefined
    const hash = VirtualKey.hashOf(secret)
    if (connection !== undefined) lastOf.set(connection, { secret, hash })
    return cache.get(hash)
  }

  const find = (secret: string): Effect.Effect<Found | undefined, KeysUnavailable> =>
    Effect.suspend(() => {
      if (!VirtualKey.isSecret(secret)) return Effect.succeed(undefined)
      const hash = VirtualKey.hashOf(secret)
      const cached = cache.get(hash)
      if (cached !== undefined && isUsable()) return Effect.succeed(cached)
      if (!available) return Effect.fail(new KeysUnavailable({}))
      if (unknown.has(hash)) return Effect.succeed(undefined)
      return looking.withPermit(lookUp(hash))
    })

  // -------------------------------------------------------------------------
  // Changes
  // -------------------------------------------------------------------------

  const change = <A, E>(
    by: string,
    action: string,
    work: (version: number, at: number) => Effect.Effect<KeyTables.Changed<A>, E | SqlError>
  ): Effect.Effect<A, Exclude<E, SqlError> | KeysUnavailable> =>
    Effect.suspend(() => {
      const at = now()
      return ask(tables.change(by, action, at, (version) => work(version, at)))
    }).pipe(
      // Here it counts at once; where that fails the next look does it.
      Effect.tap(() => Effect.ignore(refresh))
    )

  const keyOrFail = (id: string) =>
    Effect.flatMap(tables.key(id), (key) =>
      key === undefined ? Effect.fail(new KeyUnknown({ what: "key", id })) : Effect.succeed(key)
    )
  const teamOrFail = (id: string) =>
    Effect.flatMap(tables.team(id), (team) =>
      team === undefined ? Effect.fail(new KeyUnknown({ what: "team", id })) : Effect.succeed(team)
    )

  const create = (by: string, settings: VirtualKey.Settings) =>
    change<Issued, KeyUnknown>(by, "key.create", (version, at) =>
      Effect.gen(function* () {
        yield* teamOrFail(settings.team)
        const secret = VirtualKey.newSecret()
        const key: VirtualKey.Key = {
          id: VirtualKey.newId(),
          ...settings,
          createdAt: DateTime.makeUnsafe(at),
          lastUsedAt: null,
          revokedAt: null
        }
        yield* tables.insertKey(key, version)
        yield* tables.insertSecret(key.id, secret, at)
        const result = { key, secret: Redacted.make(secret, { label: key.id }) }
        return { subject: key.id, before: undefined, after: key, result }
      })
    )

  const livingKey = (id: string) =>
    Effect.flatMap(keyOrFail(id), (key) =>
      key.revokedAt === null
        ? Effect.succeed(key)
        : Effect.fail(new KeyConflict({ detail: `${id} is revoked, which is for good: create another key` }))
    )

  const update = (by: string, id: string, changes: Changes) =>
    change<VirtualKey.Key, KeyUnknown | KeyConflict | KeyInvalid>(by, "key.update", (version) =>
      Effect.gen(function* () {
        const before = yield* livingKey(id)
        const settings = yield* Effect.mapError(decodeKey(merged(encodeKey(before), changes)), invalid)
        if (settings.team !== before.team) yield* teamOrFail(settings.team)
        const { createdAt, lastUsedAt, revokedAt } = before
        const after: VirtualKey.Key = { id, ...settings, createdAt, lastUsedAt, revokedAt }
        yield* tables.updateKey(after, version)
        return { subject: id, before, after, result: after }
      })
    )

  const rotate = (by: string, id: string, overlap: Duration.Duration) =>
    change<Issued, KeyUnknown | KeyConflict>(by, "key.rotate", (version, at) =>
      Effect.gen(function* () {
        const key = yield* livingKey(id)
        const secret = VirtualKey.newSecret()
        yield* tables.endSecrets(id, at + Duration.toMillis(overlap))
        yield* tables.insertSecret(id, secret, at)
        yield* tables.updateKey(key, version)
        const result = { key, secret: Redacted.make(secret, { label: id }) }
        return { subject: id, before: key, after: key, result }
      })
    )

  const revoke = (by: string, id: string) =>
    change<VirtualKey.Key, KeyUnknown>(by, "key.revoke", (version, at) =>
      Effect.gen(function* () {
        const before = yield* keyOrFail(id)
        const after: VirtualKey.Key = { ...before, revokedAt: before.revokedAt ?? DateTime.makeUnsafe(at) }
        yield* tables.updateKey(after, version)
        return { subject: id, before, after, result: after }
      })
    )

  const createTeam = (by: string, id: string, settings: VirtualKey.TeamSettings) =>
    change<VirtualKey.Team, KeyConflict>(by, "team.create", (version, at) =>
      Effect.gen(function* () {
        if ((yield* tables.team(id)) !== undefined) {
          return yield* new KeyConflict({ detail: `there is a team ${JSON.stringify(id)} already` })
        }
        const after: VirtualKey.Team = { id, ...settings, createdAt: DateTime.makeUnsafe(at) }
        yield* tables.insertTeam(after, version)
        return { subject: id, before: undefined, after, result: after }
      })
    )

  const updateTeam = (by: string, id: string, changes: Changes) =>
    change<VirtualKey.Team, KeyUnknown | KeyInvalid>(by, "team.update", (version) =>
      Effect.gen(function* () {
        const before = yield* teamOrFail(id)
        const settings = yield* Effect.mapError(decodeTeam(merged(encodeTeam(before), changes)), invalid)
        const after: VirtualKey.Team = { id, ...settings, createdAt: before.createdAt }
        yield* tables.updateTeam(after, version)
        return { subject: id, before, after, result: after }
      })
    )

  // -------------------------------------------------------------------------
  // When keys were used
  // -------------------------------------------------------------------------

  const usedAt = new Map<string, number>()
  let unwritten = new Map<string, number>()

  const touch = (id: string): void => {
    const at = now()
    if (at - (usedAt.get(id) ?? 0) < minute) return
    if (usedAt.size > (options.capacity ?? 100_000)) usedAt.clear()
    usedAt.set(id, at)
    unwritten.set(id, at)
  }

  const writeUsed = Effect.suspend(() => {
    const batch = [...unwritten]
    if (batch.length === 0) return Effect.void
    unwritten = new Map()
    return Effect.ignore(ask(tables.touch(batch)))
  })
  yield* Effect.addFinalizer(() => writeUsed)
  yield* Effect.forkScoped(Effect.forever(Effect.delay(writeUsed, touchInterval)))

  return KeyStore.of({
    find,
    held,
    keyOf: (id) => cache.keyOf(id),
    teamOf: (id) => cache.teams.get(id),
    touch,
    hasKeys: () => hasKeys,
    status: () => ({ available, usable: isUsable(), version: seen, cached: cache.size }),
    create,
    show: (id) =>
      ask(
        Effect.gen(function* () {
          return { key: yield* keyOrFail(id), secrets: yield* tables.secretsOf(id) }
        })
      ),
    list: ({ after, limit, team }) => ask(tables.keys({ after, limit, team })),
    update,
    rotate,
    revoke,
    createTeam,
    showTeam: (id) => ask(teamOrFail(id)),
    teams: ask(tables.teams),
    updateTeam,
    audit: ({ before, limit, subject }) => ask(tables.audit({ before, limit, subject }))
  })
})

/**
 * Keys in the database, in tables that are made and brought up to date here.
 *
 * @returns fails at start with `InvalidSetting`, or with `KeysUnavailable` where the database does not answer
 */
export const layer = (
  options: Options = {}
): Layer.Layer<KeyStore, InvalidSetting.InvalidSetting | KeysUnavailable, SqlClient.SqlClient> =>
  Layer.effect(KeyStore, make(options))
