// Numbers as people read them. Pure; the words come from the dictionary of the language asked for.

import type { Language } from './words'

const UNITS = ['B', 'KB', 'MB', 'GB', 'TB']

/** 1_536 -> "1.5 KB" */
export function bytes(count: number): string {
  let unit = 0
  while (count >= 1000 && unit < UNITS.length - 1) {
    count /= 1024
    unit++
  }
  return `${unit && count < 10 ? count.toFixed(1) : Math.round(count)} ${UNITS[unit]}`
}

/** 0.042 -> "42 ms", 0.42 -> "0.4 s", 75 -> "1 min 15 s" or "1 分 15 秒" */
export function seconds(count: number, language: Language): string {
  const zh = language === 'zh'
  if (count < 0.1) return `${Math.round(count * 1000)} ${zh ? '毫秒' : 'ms'}`
  if (count < 60) return `${count < 10 ? count.toFixed(1) : Math.round(count)} ${zh ? '秒' : 's'}`
  const whole = Math.round(count)
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60]
  if (hours) return zh ? `${hours} 小时 ${minutes} 分` : `${hours} h ${minutes} min`
  return zh ? `${minutes} 分 ${rest} 秒` : `${minutes} min ${rest} s`
}

/** An estimate says no more than it knows: whole seconds, from a minute on whole minutes. */
export function roughly(count: number, language: Language): string {
  const zh = language === 'zh'
  if (count < 55) return `${Math.max(1, Math.round(count))} ${zh ? '秒' : 's'}`
  if (count < 3600) return `${Math.round(count / 60)} ${zh ? '分钟' : 'min'}`
  return seconds(count, language)
}

/** Seconds that are left when `done` of `total` took `elapsed`; null while it is too early to say. */
export function remaining(done: number, total: number, elapsed: number): number | null {
  if (done < 1 || done >= total || elapsed < 2) return null
  return (elapsed / done) * (total - done)
}

/** 260_032 -> "260 K", 1_240_000_000 -> "1.2 B" */
export function parameters(count: number): string {
  for (const [size, unit] of [[1e9, 'B'], [1e6, 'M'], [1e3, 'K']] as const) {
    if (count >= size) return `${count / size < 10 ? (count / size).toFixed(1) : Math.round(count / size)} ${unit}`
  }
  return String(count)
}

export function number(count: number, language: Language): string {
  return count.toLocaleString(language === 'zh' ? 'zh-CN' : 'en-US')
}

/** "2026-11-24T21:00:00Z" -> "24 Nov 2026, 21:00" in the reader's own time zone */
export function date(iso: string, language: Language): string {
  return new Date(iso).toLocaleString(language === 'zh' ? 'zh-CN' : 'en-GB', { dateStyle: 'medium', timeStyle: 'short' })
}

/** The language that a text is set in: Chinese when there is any of it. Fonts draw its signs accordingly. */
export function languageOf(text: string): string {
  return /[\u3040-\u30ff\u3400-\u9fff]/.test(text) ? 'zh-CN' : 'en'
}

/** Host and port of an address: "gpu:8000" of "http://gpu:8000/v1". */
export function hostOf(address: string): string {
  return URL.canParse(address) ? new URL(address).host : address
}
