// The shop's one page, as a string. Whatever comes from outside goes through `escape`.
import { randomUUID } from "node:crypto";

const STYLE = `
  :root { --ink: #22303c; --paper: #fbfaf7; --line: #ddd8cc; --accent: #2f6f4f; }
  body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
  h1 { margin-bottom: 0; } h1 + p { margin-top: 0; color: #667; }
  table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .5rem; border-bottom: 1px solid var(--line); }
  input { width: 4rem; font: inherit; } button { font: inherit; color: white; background: var(--accent); border: 0; border-radius: .3rem; padding: .3rem .9rem; }
  .done { background: #e4f2e7; padding: .6rem 1rem; border-radius: .3rem; } footer { margin-top: 2rem; color: #667; font-size: .9rem; }
`;

export function renderPage({ products, orders, ordered, facts }) {
  return document(`
    <h1>The shop</h1><p>Kitchen things, plain and good.</p>
    ${ordered ? `<p class="done" role="status">Thank you! Order <code>${escape(ordered)}</code> is placed.</p>` : ""}
    <table><tr><th>Product</th><th>Price</th><th></th></tr>${products.map(renderProduct).join("")}</table>
    <h2>${orders.count} ${orders.count === 1 ? "order" : "orders"} so far</h2>
    <table>${orders.newest.map(renderOrder).join("")}</table>
    <footer>Page by <b>${escape(facts.web)}</b>, data by <b>${escape(facts.api)}</b>.</footer>`);
}

export function renderProblem(message) {
  return document(`<h1>Sorry</h1><p>${escape(message)}</p><p><a href="/">Back to the shop</a></p>`);
}

function renderProduct({ id, name, priceCents }) {
  return `<tr><td>${escape(name)}</td><td>${(priceCents / 100).toFixed(2)} €</td><td>
    <form method="post" action="/orders"><input type="hidden" name="key" value="${randomUUID()}">
    <input type="hidden" name="product" value="${id}"><label>Quantity <input type="number" name="quantity" value="1" min="1" max="1000"></label>
    <button>Order</button></form></td></tr>`;
}

function renderOrder({ key, name, quantity, placedAt }) {
  return `<tr><td>${quantity} × ${escape(name)}</td><td>${escape(placedAt.slice(0, 19))}</td><td><code>${escape(key.slice(0, 8))}</code></td></tr>`;
}

function document(body) {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
    <title>The shop</title><style>${STYLE}</style><body>${body}</body></html>`;
}

function escape(text) {
  return String(text).replaceAll(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
}
