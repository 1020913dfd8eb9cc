// All long work in one place: files on their way up, jobs of the service, and what each file is doing right now.
// Given the API; gives rows to draw. Knows nothing of how they look.

import { api, ApiError, asApiError, isAbort, type IngestEvent, type JobState, type Stage } from './api'

export type RowStage = Stage | 'uploading' | 'queued'

export interface FileRow {
  key: string
  name: string
  stage: RowStage
  size: number
  sent: number
  page: number | null
  pages: number | null
  seconds: number
  /** When it began to be read, as far as this page saw it; 0 before that. */
  since: number
  error: string
  hint: string
  code: string
  jobId: string | null
  /** Present while the file is still with us and can be sent again. */
  file: File | null
}

interface Batch {
  knowledgeBase: string
  rows: FileRow[]
  startedAt: number
}

const UPLOADS_AT_ONCE = 2
const REFRESH_MS = 700
const IDLE_REFRESH_MS = 2000
const TELL_MS = 400

/** The stages after which nothing more happens to a file. */
export const ENDED = new Set<RowStage>(['ready', 'failed', 'skipped'])
const jobEnded = (job: JobState) => !['queued', 'running'].includes(job.state)

class Work {
  batches = $state<Batch[]>([])
  jobs = $state.raw<JobState[]>([])
  /** What each document of a job that we follow does now, by job. */
  events = $state<Record<string, Record<string, IngestEvent>>>({})
  /** This moment, ticking while there is work. */
  clock = $state(Date.now())
  drawer = $state(false)
  /** Grows whenever the documents of a knowledge base have changed: whoever shows them asks again. */
  changes = $state<Record<string, number>>({})

  private uploading = 0
  private followed: string | null = null
  private lastRefresh = 0
  private timer: ReturnType<typeof setTimeout> | null = null
  private seenEnded = new Set<string>()
  private aborts = new Map<string, AbortController>()
  private serial = 0
  private began = new Map<string, number>()
  private telling = new Set<string>()

  active = $derived(this.jobs.filter((job) => !jobEnded(job)))
  busy = $derived(this.active.length > 0 || this.batches.some((batch) => batch.rows.some((row) => !ENDED.has(row.stage))))

  start() {
    void this.refresh()
    setInterval(() => {
      if (this.busy) this.clock = Date.now()
    }, 1000)
  }

  rows(knowledgeBase: string): FileRow[] {
    const own = this.batches.filter((batch) => batch.knowledgeBase === knowledgeBase).flatMap((batch) => batch.rows)
    const known = new Set(own.map((row) => row.jobId))
    const others = this.active.filter((job) => job.knowledge_base === knowledgeBase && !known.has(job.id))
    return [...own, ...others.flatMap((job) => this.rowsOfJob(job))]
  }

  /** Done and total of everything under way in a knowledge base, and since when. */
  progress(knowledgeBase: string): { done: number; total: number; elapsed: number } {
    let [done, total, since] = [0, 0, Date.now()]
    for (const batch of this.batches.filter((batch) => batch.knowledgeBase === knowledgeBase)) {
      total += batch.rows.length
      done += batch.rows.filter((row) => ENDED.has(row.stage)).length
      since = Math.min(since, batch.startedAt)
    }
    const known = new Set(this.batches.flatMap((batch) => batch.rows.map((row) => row.jobId)))
    for (const job of this.active.filter((job) => job.knowledge_base === knowledgeBase && !known.has(job.id))) {
      total += Math.max(1, job.total)
      done += job.done
      since = Math.min(since, Date.parse(job.started_at ?? job.created_at))
    }
    return { done, total, elapsed: (Math.max(this.clock, since) - since) / 1000 }
  }

  add(knowledgeBase: string, files: { file: File; name: string; skipped?: boolean }[]) {
    this.forgetEnded(knowledgeBase)
    const rows = files.map(({ file, name, skipped }): FileRow => ({
      key: `file-${this.serial++}`, name, size: file.size, sent: 0, file,
      stage: skipped ? 'skipped' : 'queued', code: skipped ? 'unsupported_document' : '',
      page: null, pages: null, seconds: 0, since: 0, error: '', hint: '', jobId: null,
    }))
    this.batches.push({ knowledgeBase, rows, startedAt: Date.now() })
    this.pump()
  }

  retry(row: FileRow) {
    Object.assign(row, { stage: 'queued', error: '', hint: '', code: '', sent: 0, jobId: null })
    this.pump()
  }

  adopt(job: JobState) {
    this.jobs = [job, ...this.jobs.filter((other) => other.id !== job.id)]
    void this.refresh()
  }

  /** Stops what is under way in a knowledge base. What is already read stays. */
  async cancelAll(knowledgeBase: string) {
    for (const batch of this.batches.filter((batch) => batch.knowledgeBase === knowledgeBase)) {
      for (const row of batch.rows) {
        if (row.stage === 'queued') Object.assign(row, { stage: 'skipped', code: 'cancelled' })
        if (row.stage === 'uploading') this.aborts.get(row.key)?.abort()
      }
    }
    const jobs = this.active.filter((job) => job.knowledge_base === knowledgeBase)
    await Promise.all(jobs.map((job) => this.cancel(job)))
  }

  async cancel(job: JobState) {
    await api.cancelJob(job.id).catch(() => undefined)
    await this.refresh()
  }

  dismiss(row: FileRow) {
    for (const batch of this.batches) batch.rows = batch.rows.filter((other) => other.key !== row.key)
    this.batches = this.batches.filter((batch) => batch.rows.length)
  }

  /** Many files may end at once; who shows them is told now and then, not for each. */
  private changed(knowledgeBase: string) {
    if (this.telling.has(knowledgeBase)) return
    this.telling.add(knowledgeBase)
    setTimeout(() => {
      this.telling.delete(knowledgeBase)
      this.changes[knowledgeBase] = (this.changes[knowledgeBase] ?? 0) + 1
    }, TELL_MS)
  }

  private forgetEnded(knowledgeBase: string) {
    this.batches = this.batches.filter(
      (batch) => batch.knowledgeBase !== knowledgeBase || batch.rows.some((row) => !ENDED.has(row.stage)),
    )
  }

  private pump() {
    for (const batch of this.batches) {
      for (const row of batch.rows) {
        if (this.uploading >= UPLOADS_AT_ONCE) return
        if (row.stage === 'queued') void this.send(batch.knowledgeBase, row)
      }
    }
  }

  private async send(knowledgeBase: string, row: FileRow) {
    if (!row.file) return
    this.uploading++
    row.stage = 'uploading'
    const abort = new AbortController()
    this.aborts.set(row.key, abort)
    try {
      const job = await api.upload(knowledgeBase, row.file, row.name, (sent) => (row.sent = sent), abort.signal)
      row.jobId = job.id
      row.stage = 'waiting'
      this.adopt(job)
    } catch (error) {
      const known = isAbort(error) ? new ApiError('', 'cancelled') : asApiError(error)
      Object.assign(row, {
        stage: known.code === 'cancelled' ? 'skipped' : 'failed', error: known.message, hint: known.hint, code: known.code,
      })
    } finally {
      this.aborts.delete(row.key)
      this.uploading--
      this.pump()
    }
  }

  /** Asks for the jobs now, or a little later if we only just asked. */
  private async refresh(): Promise<void> {
    const wait = this.lastRefresh + REFRESH_MS - Date.now()
    if (wait > 0) return this.later(wait)
    this.lastRefresh = Date.now()
    let jobs: JobState[]
    try {
      jobs = await api.jobs()
    } catch {
      return this.later(IDLE_REFRESH_MS * 3)
    }
    this.jobs = jobs
    this.settle()
    const running = jobs.find((job) => job.state === 'running')
    if (running && this.followed !== running.id) void this.follow(running.id)
    if (this.active.length) this.later(IDLE_REFRESH_MS)
  }

  private later(milliseconds: number) {
    if (this.timer) clearTimeout(this.timer)
    this.timer = setTimeout(() => void this.refresh(), milliseconds)
  }

  private async follow(id: string) {
    this.followed = id
    try {
      for await (const news of api.jobEvents(id, new AbortController().signal)) {
        if ('stage' in news) {
          if (news.stage === 'reading') this.began.set(`${id}/${news.path}`, this.began.get(`${id}/${news.path}`) ?? Date.now())
          this.events[id] = { ...this.events[id], [news.path || news.document]: news }
          this.settle()
          if (ENDED.has(news.stage)) this.changed(this.jobs.find((job) => job.id === id)?.knowledge_base ?? '')
        }
      }
    } catch {
      // The connection broke; the next refresh follows again.
    }
    if (this.followed === id) this.followed = null
    await this.refresh()
  }

  /** Brings the rows up to what jobs and events say. */
  private settle() {
    const jobs = new Map(this.jobs.map((job) => [job.id, job]))
    for (const batch of this.batches) {
      for (const row of batch.rows) {
        const job = row.jobId === null ? undefined : jobs.get(row.jobId)
        if (!job || ENDED.has(row.stage)) continue
        const event = Object.values(this.events[job.id] ?? {}).at(-1) ?? job.current
        if (event) Object.assign(row, pick(event), { since: this.began.get(`${job.id}/${event.path}`) ?? 0 })
        if (jobEnded(job)) Object.assign(row, outcome(job, row))
      }
    }
    for (const job of this.jobs) {
      if (!jobEnded(job) || this.seenEnded.has(job.id)) continue
      this.seenEnded.add(job.id)
      delete this.events[job.id]
      this.changed(job.knowledge_base)
    }
  }

  private rowsOfJob(job: JobState): FileRow[] {
    const events = Object.values(this.events[job.id] ?? (job.current ? { [job.current.path]: job.current } : {}))
    const bare = { size: 0, sent: 0, code: '', jobId: job.id, file: null }
    if (!events.length) {
      return [{ ...bare, key: job.id, name: job.title, stage: 'waiting', page: null, pages: null, seconds: 0, since: 0, error: '', hint: '' }]
    }
    const shown = events.filter((event) => event.stage !== 'ready' && event.stage !== 'skipped')
    return shown.map((event) => ({ ...bare, key: `${job.id}/${event.path}`, name: event.document, since: this.began.get(`${job.id}/${event.path}`) ?? 0, ...pick(event) }))
  }
}

function pick(event: IngestEvent) {
  const { stage, page, pages, seconds, error, hint, code } = event
  return { stage, page, pages, seconds, error, hint, code }
}

function outcome(job: JobState, row: FileRow): Partial<FileRow> {
  const failure = job.failed[0]
  if (failure) return { stage: 'failed', error: failure.error, hint: failure.hint, code: failure.code }
  if (job.state === 'failed') {
    return { stage: 'failed', error: job.error?.message ?? '', hint: job.error?.hint ?? '', code: job.error?.code ?? '' }
  }
  if (job.state === 'cancelled') return { stage: 'skipped', code: 'cancelled' }
  return { stage: row.stage === 'skipped' ? 'skipped' : 'ready' }
}

export const work = new Work()
