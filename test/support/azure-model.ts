/**
 * Checks bodies against the API model that Microsoft publishes: the declarations of @azure/arm-compute, which are generated
 * from the service's TypeSpec. They are read where npm put them; nothing of them is copied here.
 */
import { readFileSync } from 'node:fs';
import * as path from 'node:path';
import ts from 'typescript';

interface Member {
  type: ts.TypeNode;
  optional: boolean;
  readonly: boolean;
}

interface Model {
  interfaces: Map<string, { members: Map<string, Member>; parents: string[] }>;
  aliases: Map<string, ts.TypeNode>;
  /** Values of `KnownX`, by X. */
  known: Map<string, Set<string>>;
}

const PACKAGE = path.join(import.meta.dirname, '../../node_modules/@azure/arm-compute/dist/esm/models');

/** Declarations of these files; a name in an earlier one counts. */
function readModel(files: readonly string[]): Model {
  const model: Model = { interfaces: new Map(), aliases: new Map(), known: new Map() };
  for (const file of files) {
    const text = readFileSync(path.join(PACKAGE, file), 'utf8');
    for (const node of ts.createSourceFile(file, text, ts.ScriptTarget.Latest).statements) addTo(model, node);
  }
  if (model.interfaces.size === 0) throw new Error('the model of arm-compute cannot be read');
  return model;
}

function addTo(model: Model, node: ts.Statement): void {
  if (ts.isInterfaceDeclaration(node) && !model.interfaces.has(node.name.text)) {
    const members = new Map<string, Member>();
    for (const member of node.members) {
      if (!ts.isPropertySignature(member) || member.type === undefined || !ts.isIdentifier(member.name))
        continue;
      const readonly = member.modifiers?.some((m) => m.kind === ts.SyntaxKind.ReadonlyKeyword) ?? false;
      members.set(member.name.text, {
        type: member.type,
        optional: member.questionToken !== undefined,
        readonly,
      });
    }
    const parents = (node.heritageClauses ?? []).flatMap((clause) =>
      clause.types.flatMap(({ expression }) => (ts.isIdentifier(expression) ? [expression.text] : [])),
    );
    model.interfaces.set(node.name.text, { members, parents });
  } else if (ts.isTypeAliasDeclaration(node) && !model.aliases.has(node.name.text)) {
    model.aliases.set(node.name.text, node.type);
  } else if (ts.isEnumDeclaration(node)) {
    const values = node.members.flatMap(({ initializer }) =>
      initializer !== undefined && ts.isStringLiteral(initializer) ? [initializer.text] : [],
    );
    const name = node.name.text.replace(/^Known/, '');
    if (!model.known.has(name)) model.known.set(name, new Set(values));
  }
}

function membersOf(model: Model, name: string): Map<string, Member> | undefined {
  const found = model.interfaces.get(name);
  if (found === undefined) return undefined;
  const inherited = found.parents.flatMap((parent) => [...(membersOf(model, parent) ?? [])]);
  return new Map([...inherited, ...found.members]);
}

function checkNode(model: Model, type: ts.TypeNode, value: unknown, at: string): string[] {
  if (ts.isUnionTypeNode(type)) {
    const all = type.types.map((one) => checkNode(model, one, value, at));
    return all.some((problems) => problems.length === 0)
      ? []
      : [`${at}: ${JSON.stringify(value)} is none of its values`];
  }
  if (ts.isLiteralTypeNode(type))
    return ts.isStringLiteral(type.literal) && type.literal.text === value ? [] : [`${at} is another value`];
  if (ts.isArrayTypeNode(type)) {
    if (!Array.isArray(value)) return [`${at} is no array`];
    return value.flatMap((one, i) => checkNode(model, type.elementType, one, `${at}[${i}]`));
  }
  if (ts.isTypeReferenceNode(type) && ts.isIdentifier(type.typeName)) {
    const name = type.typeName.text;
    if (name === 'Date')
      return typeof value === 'string' && !Number.isNaN(Date.parse(value)) ? [] : [`${at} is no date`];
    if (name === 'Record') {
      const inner = type.typeArguments?.[1];
      if (typeof value !== 'object' || value === null || inner === undefined) return [`${at} is no object`];
      return Object.entries(value).flatMap(([key, one]) => checkNode(model, inner, one, `${at}.${key}`));
    }
    return checkNamed(model, name, value, at);
  }
  const wanted = {
    [ts.SyntaxKind.StringKeyword]: 'string',
    [ts.SyntaxKind.NumberKeyword]: 'number',
    [ts.SyntaxKind.BooleanKeyword]: 'boolean',
  }[type.kind as ts.SyntaxKind.StringKeyword | ts.SyntaxKind.NumberKeyword | ts.SyntaxKind.BooleanKeyword];
  if (wanted === undefined) return [`${at}: the model is not understood here`];
  return typeof value === wanted ? [] : [`${at} is no ${wanted}`];
}

function checkNamed(model: Model, name: string, value: unknown, at: string): string[] {
  const known = model.known.get(name);
  if (known !== undefined && !known.has(String(value)))
    return [`${at}: ${JSON.stringify(value)} is not known of ${name}`];
  const alias = model.aliases.get(name);
  if (alias !== undefined) return checkNode(model, alias, value, at);
  const members = membersOf(model, name);
  if (members === undefined) return [`${at}: no ${name} in the model`];
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [`${at} is no object`];
  const given = new Map(Object.entries(value));
  const problems = [...given].flatMap(([key, one]) => {
    const member = members.get(key);
    if (member === undefined) return [`${at}.${key} is not in ${name}`];
    return member.readonly
      ? [`${at}.${key} is read-only`]
      : checkNode(model, member.type, one, `${at}.${key}`);
  });
  for (const [key, { optional, readonly }] of members)
    if (!optional && !readonly && given.get(key) === undefined) problems.push(`${at}.${key} is missing`);
  return problems;
}

/** A resource as it travels: tracked fields, `properties` of its own type, and the top-level fields named. */
export function checkResource(
  area: 'compute' | 'computeDisk' | 'computeGallery',
  name: string,
  body: unknown,
): string[] {
  const model = readModel([`${area}/models.d.ts`, 'common/models.d.ts', 'models.d.ts']);
  const { properties, ...rest } = (body ?? {}) as Record<string, unknown>;
  return [
    ...checkNamed(model, name, rest, name),
    ...checkNamed(model, `${name}Properties`, properties, `${name}.properties`),
  ];
}

/** A body that is no resource. */
export function checkBody(
  area: 'compute' | 'computeDisk' | 'computeGallery',
  name: string,
  body: unknown,
): string[] {
  return checkNamed(
    readModel([`${area}/models.d.ts`, 'common/models.d.ts', 'models.d.ts']),
    name,
    body,
    name,
  );
}
