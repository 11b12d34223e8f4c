/**
 * What was created on the way to something larger, so that a crash in the middle leaves no orphans.
 *
 * **Details**
 *
 * A job notes what it is about to make, then what was made, and at its end that all of it is wanted. What a
 * job has made and never said to be wanted is deleted by `VectorStoreBuilder`'s `recover`. The default keeps
 * no journal; `layerMemory` lasts as long as the process, `CreationJournalFile` outlives it.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { Openings } from "./internal/openings.ts"

/** One line of the journal. */
export const Entry = /* @__PURE__ */ Schema.TaggedUnion({
  /** About to be made; `step` is unique in its job. */
  Intended: {
    job: Schema.String,
    step: Schema.Int,
    kind: /* @__PURE__ */ Schema.Literals(["file", "vectorStore"]),
    /** Of a file. */
    filename: /* @__PURE__ */ Schema.optionalKey(Schema.String),
    /** Of a file. */
    bytes: /* @__PURE__ */ Schema.optionalKey(Schema.Finite),
    /** Unix seconds. */
    at: Schema.Finite
  },
  /** Made. `certain` where no failed attempt can have made another one. */
  Made: { job: Schema.String, step: Schema.Int, id: Schema.String, certain: Schema.Boolean },
  /** Certainly not made, deleted again, or looked for and settled. */
  Settled: { job: Schema.String, step: Schema.Int },
  /** All that the job has made is wanted. */
  Kept: { job: Schema.String }
})
export type Entry = typeof Entry.Type

/** Something of a job that nobody has settled. */
export interface Open {
  readonly job: string
  readonly step: number
  readonly kind: "file" | "vectorStore"
  readonly filename: string | undefined
  readonly bytes: number | undefined
  /** Unix seconds. */
  readonly at: number
  /** Where it is known. */
  readonly id: string | undefined
  /** The job has ended well: what has an id stays, only a second one may be there beside it. */
  readonly kept: boolean
}

/** The journal could not be read or written. */
export class JournalFailed
  extends /* @__PURE__ */ Schema.TaggedError<JournalFailed>()("JournalFailed", {
    detail: Schema.String,
    cause: /* @__PURE__ */ Schema.optional(/* @__PURE__ */ Schema.Defect())
  })
{
  override get message(): string {
    return `the journal of created files failed: ${this.detail}`
  }
}

/** What a journal does. */
export interface Service {
  /** Notes entries before it returns. */
  readonly append: (entries: ReadonlyArray<Entry>) => Effect.Effect<void, JournalFailed>
  /** Everything that is not settled, oldest first. */
  readonly open: Effect.Effect<ReadonlyArray<Open>, JournalFailed>
}

/** Keeps nothing. */
export const none: Service = { append: () => Effect.void, open: Effect.succeed([]) }

/** The journal that jobs write to; none unless provided. */
export const CreationJournal = Context.Reference<Service>("@llm/openai/CreationJournal", {
  defaultValue: () => none
})

/** A journal that lasts as long as its scope. */
export const layerMemory: Layer.Layer<never> = /* @__PURE__ */ Layer.sync(CreationJournal, () => {
  const openings = new Openings()
  return {
    append: (entries) => Effect.sync(() => entries.forEach((entry) => openings.apply(entry))),
    open: Effect.sync(() => openings.all)
  }
})
