// Events of this catalog, as `tidewire schema export --typescript` writes them. Change the catalog, not this file.

/** `order.cancelled version 1` on channel `orders`. */
export interface OrderCancelled {
  id: number | string;
  why?: "late";
}

/** `order.placed version 1` on channel `orders`. */
export interface OrderPlacedV1 {
  id?: number;
}

/**
 * An order was placed.
 *
 * With a comment that ends: *\/
 *
 * `order.placed version 2` on channel `orders`.
 */
export interface OrderPlaced {
  anything: unknown;
  by_name: { [name: string]: number[] };
  by_number: { [name: string]: OrderPlacedState };
  class: boolean;
  gift: OrderPlacedGift;
  /** Its number. */
  id: number;
  invoice_to?: OrderPlacedAddress | null;
  last_state?: OrderPlacedState | null;
  lines: OrderPlacedLine[];
  notes: (string | null)[];
  "odd-name \"1\"": boolean;
  payment: OrderPlacedPayment;
  place: [number, number, string | null];
  state: OrderPlacedState;
  to: OrderPlacedAddress;
  total?: number | null;
}

/** Where an order goes. */
export interface OrderPlacedAddress {
  street: string;
  zipCode?: string | null;
}

export interface OrderPlacedBank {
  iban: string;
}

export type OrderPlacedGift = "Nothing" | {
  Card: {
    text: string;
  };
} | {
  Wrapped: boolean;
};

export interface OrderPlacedLine {
  parts: OrderPlacedLine[];
  sku: string;
}

export type OrderPlacedPayment = {
  month: number;
  number: string;
  type: "card";
} | {
  type: "bank";
} & OrderPlacedBank | {
  type: "cash";
};

export type OrderPlacedState = "Paid" | "Sent" | "Open";

/** `stock.counted version 1`. */
export type StockCounted = [string?, ...number[]];

/** The newest version of each event type. */
export interface Events {
  "order.cancelled": OrderCancelled;
  "order.placed": OrderPlaced;
  "stock.counted": StockCounted;
}

/** What is sent to each channel. */
export interface Channels {
  "orders": OrderCancelled | OrderPlaced;
}
