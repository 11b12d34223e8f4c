/**
 * Metrics by their attributes, made once and found again with a few look-ups: a call counts in half a dozen of them.
 */
import type * as Context from "effect/Context"
import type * as Metric from "effect/Metric"
import * as SafeName from "./safeName.ts"

/** Attributes of a metric or a span. */
export type Attributes = Readonly<Record<string, string>>

/** Attributes, and what they are told apart by. */
export interface Labels {
  readonly attributes: Attributes
  readonly key: string
}

const labelsFrom = (attributes: Attributes): Labels => ({
  attributes,
  key: `${Object.values(attributes).join("\u0000")}\u0000`
})

const mostLabels = 1000

/** Those that were asked for lately, by up to three names: to look these up is cheaper than to make one key of them. */
export class RecentLabels {
  private readonly known = new Map<string, Map<string, Map<string | undefined, Labels>>>()
  private size = 0

  of(first: string, second: string, third: string | undefined, make: () => Attributes): Labels {
    return this.known.get(first)?.get(second)?.get(third) ?? this.add(first, second, third, make())
  }

  private add(first: string, second: string, third: string | undefined, attributes: Attributes): Labels {
    if (this.size >= mostLabels) {
      this.known.clear()
      this.size = 0
    }
    this.size += 1
    const labels = labelsFrom(attributes)
    const bySecond = this.known.get(first) ?? new Map<string, Map<string | undefined, Labels>>()
    const byThird = bySecond.get(second) ?? new Map<string | undefined, Labels>()
    this.known.set(first, bySecond.set(second, byThird.set(third, labels)))
    return labels
  }
}

/** One series for each set of attributes. Its metrics are made once: to make them costs more than to count. */
export class Series<Input, State> {
  private readonly known = new Map<string, Metric.Metric<Input, State>>()
  /** The same, without making a key. */
  private readonly recent = new WeakMap<Labels, Map<string, Metric.Metric<Input, State>>>()
  private readonly make: (attributes: Attributes) => Metric.Metric<Input, State>
  private readonly context: Context.Context<never>
  private readonly limit: number
  constructor(
    make: (attributes: Attributes) => Metric.Metric<Input, State>,
    context: Context.Context<never>,
    limit: number
  ) {
    this.make = make
    this.context = context
    this.limit = limit
  }

  /** @param more the values of `others`, which are only asked for where the series is a new one */
  update(input: Input, labels: Labels, more = "", others?: () => Attributes): void {
    let found = this.recent.get(labels)?.get(more)
    if (found === undefined) {
      found = this.find(labels, more, others)
      const recent = this.recent.get(labels) ?? new Map<string, Metric.Metric<Input, State>>()
      this.recent.set(labels, recent.set(more, found))
    }
    found.updateUnsafe(input, this.context)
  }

  private find(
    labels: Labels,
    more: string,
    others: (() => Attributes) | undefined
  ): Metric.Metric<Input, State> {
    const key = labels.key + more
    const known = this.known.get(key)
    if (known !== undefined) return known
    // A caller may name any model: it must not fill the memory with series.
    if (this.known.size >= this.limit && labels.attributes["gen_ai.request.model"] !== "other") {
      const other = labelsFrom({ ...labels.attributes, "gen_ai.request.model": "other" })
      return this.find(other, more, others)
    }
    const attributes = { ...labels.attributes, ...others?.() }
    const made = this.make(
      Object.fromEntries(Object.entries(attributes).map(([name, value]) => [name, SafeName.of(value)]))
    )
    this.known.set(key, made)
    return made
  }
}
