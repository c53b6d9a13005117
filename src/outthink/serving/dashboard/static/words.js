// Numbers and times as people read them. What is unknown says so, and is never a zero.

import { el } from "./dom.js";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });

export const missing = (value) => value === null || value === undefined;
export const unknown = () => el("span", { class: "unknown" }, "unknown");

export const count = (value) => (missing(value) ? unknown() : whole.format(value));
export const usd = (value) => (missing(value) ? unknown() : dollars(value));
export const joules = (value) => (missing(value) ? unknown() : `${digits.format(value)} J`);
export const seconds = (value) => (missing(value) ? unknown() : duration(value));
export const percent = (value) => `${(100 * value).toFixed(1)} %`;

export function dollars(value) {
  if (value === 0) return "$0";
  return value >= 0.01 ? `$${value.toFixed(value >= 100 ? 0 : 2)}` : `$${digits.format(value)}`;
}

export function duration(value) {
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
}

export function short(value) {
  for (const [size, prefix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= size) return `${digits.format(value / size)}${prefix}`;
  }
  return digits.format(value);
}

export function moment(value) {
  const date = new Date(value * 1000);
  const today = date.toDateString() === new Date().toDateString();
  const text = today ? clock.format(date) : `${day.format(date)} ${clock.format(date)}`;
  return el("time", { datetime: date.toISOString(), title: date.toISOString() }, text);
}

export const plural = (number, one, many = `${one}s`) => `${whole.format(number)} ${number === 1 ? one : many}`;
