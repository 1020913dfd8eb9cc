// One training run as it is watched: its curve, findings and samples, followed live and taken up again when the line breaks.

import { api, ApiError, asApiError, isAbort, type Evaluation, type Finding, type RunDetail, type RunEvent, type Sample, type StepReport } from './api'

const REDRAW_MS = 200
const MOST_STEPS = 6000
const MOST_SAMPLES = 40

export class RunView {
  detail = $state.raw<RunDetail | null>(null)
  steps = $state.raw<StepReport[]>([])
  evaluations = $state.raw<Evaluation[]>([])
  findings = $state.raw<Finding[]>([])
  samples = $state.raw<Sample[]>([])
  error = $state.raw<ApiError | null>(null)
  last = $derived(this.steps.at(-1) ?? null)
  best = $derived(this.evaluations.reduce<Evaluation | null>((best, one) => (!best || one.loss < best.loss ? one : best), null))

  private leaving = new AbortController()
  private after = ''
  private coming: StepReport[] = []
  private timer = 0

  constructor(
    readonly name: string,
    readonly language: string,
  ) {}

  /** Follows the run until it is over or `close` is called. */
  async open() {
    while (!this.leaving.signal.aborted) {
      try {
        this.detail = await api.run(this.name, this.language)
        this.error = null
        if (await this.follow()) return
      } catch (problem) {
        if (isAbort(problem)) return
        this.error = asApiError(problem)
        if (this.error.status >= 400 && this.error.status < 500) return
      }
      await new Promise((resolve) => setTimeout(resolve, 1500))
    }
  }

  close() {
    this.leaving.abort()
    clearTimeout(this.timer)
  }

  async steer(verb: 'pause' | 'resume' | 'stop') {
    const over = this.detail?.state !== 'running' && this.detail?.state !== 'paused'
    const run = await api.steerRun(this.name, verb)
    if (this.detail) this.detail = { ...this.detail, ...run }
    if (over) {
      this.void()
      void this.open()
    }
  }

  /** True when the run is over; false when the line broke off before. */
  private async follow(): Promise<boolean> {
    for await (const event of api.runEvents(this.name, this.language, this.after, this.leaving.signal)) {
      if (event.id) this.after = event.id
      this.take(event)
      if (event.type === 'over') {
        this.redraw()
        this.detail = await api.run(this.name, this.language)
        return true
      }
    }
    return false
  }

  private take(event: RunEvent) {
    switch (event.type) {
      case 'restart':
        return this.void()
      case 'step':
        this.coming.push(event.step)
        this.timer ||= setTimeout(() => this.redraw(), REDRAW_MS)
        return
      case 'evaluation':
        this.evaluations = [...this.evaluations, event.evaluation]
        return
      case 'finding':
        // A rule that speaks again replaces what it said before.
        this.findings = [event.finding, ...this.findings.filter(({ id }) => id !== event.finding.id)]
        return
      case 'sample':
        this.samples = [event.sample, ...this.samples].slice(0, MOST_SAMPLES)
        return
      case 'state':
        if (this.detail) {
          const begun = !this.detail.floors && event.run.step > 0
          this.detail = { ...this.detail, ...event.run }
          if (begun) void this.refresh()
        }
    }
  }

  private async refresh() {
    this.detail = await api.run(this.name, this.language).catch(() => this.detail)
  }

  private redraw() {
    this.timer = 0
    const first = this.steps.length === 0
    const all = [...this.steps, ...this.coming]
    this.coming = []
    this.steps = all.length > MOST_STEPS ? all.filter((_, i) => i % 2 === all.length % 2 || i === all.length - 1) : all
    // The floors are counted before the first step.
    if (first && all.length && !this.detail?.floors) void this.refresh()
  }

  private void() {
    this.after = ''
    this.coming = []
    this.steps = []
    this.evaluations = []
    this.findings = []
    this.samples = []
  }
}

/** A path as a shell takes it. */
export function quoted(path: string): string {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`
}
